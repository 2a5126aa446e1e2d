"""Stores each training as a trial of a second Optuna study: its reports, and its result or the reason it failed."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from autoranger.components.core.errors import ConfigError
from autoranger.search.direction import Direction
from autoranger.search.serialization import to_json
from autoranger.search.space import Space, in_words
from autoranger.search.storage.record import RUNS
from autoranger.search.storage.storage import running, writing
from autoranger.search.tune.training import Result
from autoranger.search.tune.trial import Job

FIRST, EVERY = 100, 100
"""The first reports of a training are all stored, and then one in so many, since each is a write."""


class Runs:
    """The study of a search's trainings. The value of a trial is the metric as the function returned it.

    Args:
        storage: of the search's study.
        study: name of the search's study. This one has "-runs" after it.
        direction: of the metric.
        space: of the candidates.
        resume: whether the study may exist.

    Attributes:
        known: the results of earlier sessions.

    Raises:
        ConfigError: if another study has the name.
    """

    def __init__(self, storage: BaseStorage, study: str, direction: Direction, space: Space, *, resume: bool) -> None:
        self.storage, self.space, name = storage, space, study + RUNS
        with writing():
            exists = name in optuna.get_all_study_names(storage)
            self.study = (
                optuna.load_study(study_name=name, storage=storage)
                if exists
                else optuna.create_study(study_name=name, storage=storage, direction=direction)
            )
            if exists and not (resume and self.study.user_attrs.get("runs_of") == study):
                raise ConfigError(f"study '{name}' exists, where the trainings would go; choose another --study.")
            self.study.set_user_attr("runs_of", study)
        self._id = storage.get_study_id_from_name(name)
        self._trials, self._reports = dict[Job, int](), dict[Job, int]()
        self.give_up()  # trainings that were interrupted in an earlier session, which are done again
        self.known = self._recalled()

    def _recalled(self) -> dict[Job, Result]:
        """The results of trainings in earlier sessions."""
        found = {}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
            noted = trial.user_attrs
            if "result" in noted:
                found[Job.from_data(noted)] = Result.from_data(noted["result"])
        return found

    def begun(self, job: Job) -> None:
        """Stores that a training begins."""
        config = job.config
        trial = create_trial(
            state=TrialState.RUNNING,
            params=self.space.params(config),
            distributions=self.space.distributions_of(config),
            user_attrs={"name": in_words(config.components), **job.to_data()},
        )
        with writing():
            self._trials[job] = self.storage.create_new_trial(self._id, trial)
        self._reports[job] = 0

    def reported(self, job: Job, step: int, value: float) -> None:
        """Stores a report."""
        self._reports[job] += 1
        if self._reports[job] <= FIRST or self._reports[job] % EVERY == 0:
            with writing():
                self.storage.set_trial_intermediate_value(self._trials[job], step, value)

    def ended(self, job: Job, result: Result, value: float) -> None:
        """Stores the result of a training."""
        number, self.known[job] = self._trials.pop(job), result
        state = TrialState.FAIL if result.failure else TrialState.COMPLETE
        facts = {name: fact for name, fact in vars(result).items() if name not in ("trace", "scale")}
        with writing():
            self.storage.set_trial_user_attr(number, "result", to_json(facts))
            for name, fact in (("failed", result.failure), ("trace", result.trace)):
                if fact:
                    self.storage.set_trial_user_attr(number, name, fact)
            self.storage.set_trial_state_values(number, state, None if result.failure else [value])

    def give_up(self) -> None:
        """Stores that the trainings which have not ended were interrupted."""
        with writing():
            for number, _ in running(self.storage, self._id):
                self.storage.set_trial_user_attr(number, "failed", "interrupted")
                self.storage.set_trial_state_values(number, TrialState.FAIL)
        self._trials.clear()


class Heard:
    """A `Listener` that stores trainings.

    Args:
        runs: the study; None stores nothing.
        pulse: called now and then.
    """

    def __init__(self, runs: Runs | None, pulse: Callable[[], None]) -> None:
        self.runs, self.pulse = runs, pulse

    def begun(self, job: Job) -> None:
        """See `Listener`."""
        if self.runs:
            self.runs.begun(job)

    def reported(self, job: Job, step: int, value: float) -> None:
        """See `Listener`."""
        if self.runs:
            self.runs.reported(job, step, value)

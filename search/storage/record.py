"""A search's trials in an Optuna study: readable by every Optuna tool, and reused when the search resumes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from json import dumps
from shlex import join
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.arrays import Values
from autoranger.search.commands import program, resuming, this_command
from autoranger.search.race.plan import Plan
from autoranger.search.race.rounds import Round
from autoranger.search.serialization import from_data, to_json
from autoranger.search.space import Space, in_words
from autoranger.search.storage.entry import Entry, means, to_array
from autoranger.search.storage.fingerprint import changed
from autoranger.search.storage.process import ended, this_process
from autoranger.search.storage.sittings import SEARCHING, SITTINGS, begun, noted, now, sittings
from autoranger.search.storage.storage import running, writing

RUNS = "-runs"
"""What the name of a study with the trainings of a user's own function ends with."""

FINGERPRINT = "fingerprint"
"""The setting with the task's fingerprint (see `fingerprint`)."""

ORIGIN = "origin"
"""The attribute of a study that says where others find what it trains: a task, or a function to train."""

VERDICT = "verdict"
"""The attribute of a study with the results of the verdict's trainings."""


class Record:
    """The trials of one search. A candidate is one trial, and each of its rounds an intermediate value.

    The step of an intermediate value counts the training steps of its round (steps × seeds); the trial's attribute
    `rounds` has the metric of each seed. A trial's value is the mean metric on the fresh seeds of the verdict, or in
    its last round if it got no further. The best of the complete trials is the exported config: trials that look better
    without having been shown to be are pruned. A trial fails if a run of its last round failed; its attribute `failed`
    says why.

    Results are written as they come, into trials that run until the search ends. A search that is interrupted leaves
    pruned trials, and one that is killed leaves running ones; both can be resumed. Results are written once: those that
    a candidate gets after its trial has been pruned go into a second trial.

    Args:
        storage: of the study.
        name: of the study.
        space: of the candidates.
        settings: everything that determines the results. A search resumes only with the same settings.
        resume: whether to continue the study of that name, without training again what it has.

    Raises:
        ConfigError: if a study of that name exists and is not to be resumed, cannot be resumed or is finished, or if
            another process is searching in it.
        DataError: if the storage cannot be written, here and in every method.
    """

    def __init__(
        self, storage: BaseStorage, name: str, space: Space, settings: Mapping[str, Any], *, resume: bool
    ) -> None:
        self.storage, self.space = storage, space
        self._entries: dict[Config, Entry] = {}
        self._began = datetime.now()
        self.reasons: dict[Config, str] = {}
        self.recalled = 0
        settings = to_json(settings)  # as a storage returns it
        with writing():
            try:
                if resume:
                    self.study = optuna.load_study(study_name=name, storage=storage)
                else:
                    self.study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
            except optuna.exceptions.DuplicatedStudyError:
                raise ConfigError(
                    f"study '{name}' exists; continue it with --resume or choose another --study."
                ) from None
            except KeyError:
                raise ConfigError(f"there is no study '{name}' to resume; leave out --resume to begin it.") from None
            self._id = storage.get_study_id_from_name(name)
            if resume:
                self._check(settings)
            self._claim()
            self._sittings = [*sittings(self.study), begun()]
            self.study.set_user_attr(SITTINGS, noted(self._sittings))
            if resume:
                self._recall()
            self.study.set_user_attr("settings", settings)

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Raises ConfigError if the study cannot be continued with these settings."""
        name, noted = self.study.study_name, self.study.user_attrs
        if "settings" not in noted and (
            self.study.get_trials(deepcopy=False) or self.study.directions != [StudyDirection.MAXIMIZE]
        ):
            raise ConfigError(f"study '{name}' was not made by autoranger search; choose another --study.")
        before = noted.get("settings", settings)
        if not isinstance(before, Mapping) or before.keys() != settings.keys():
            raise ConfigError(f"study '{name}' was made by another version of autoranger; choose another --study.")
        others = [
            f"{key} {dumps(before[key])}, not {dumps(value)}".replace("null", "none")
            for key, value in settings.items()
            if before[key] != value and key != FINGERPRINT
        ]
        if others:
            known = [resuming(sitting.command, name) for sitting in sittings(self.study)[:1]]
            again = ": " + known[0] if known and known[0] != this_command() else "."
            raise ConfigError(f"study '{name}' was made with other settings: {'; '.join(others)}. Use the same{again}")
        if FINGERPRINT in settings and (words := changed(before[FINGERPRINT], settings[FINGERPRINT])):
            raise ConfigError(
                f"the task is not the one that study '{name}' began with: {words} changed; undo that, or choose "
                "another --study."
            )
        if "outcome" in noted:
            raise ConfigError(
                f"study '{name}' is finished; see {program()} {join(['report', name])} with the same --storage, if any "
                "(--out FOLDER writes its configs), or choose another --study."
            )

    def _claim(self) -> None:
        """Registers this process as the one that searches; raises ConfigError if another one does."""
        name, me, holder = self.study.study_name, this_process(), self.study.user_attrs.get(SEARCHING)
        if holder not in (None, me) and not ended(holder):
            where, number, _ = [*str(holder).split(), "?", "?", "?"][:3]
            if ended(holder) is not None:
                raise ConfigError(
                    f"study '{name}' is being searched by process {number}; wait for it, or choose another --study."
                )
            warnings.warn(
                f"study '{name}' was last searched by process {number} on {where}, which cannot be seen from here; "
                "make sure that it has ended.",
                stacklevel=4,
            )
        self.study.set_user_attr(SEARCHING, me)
        holder = self.study.user_attrs.get(SEARCHING)
        if holder != me:
            raise ConfigError(f"another search has just begun in study '{name}'; choose another --study.")

    def _recall(self) -> None:
        """Reads the trials of earlier sessions."""
        for trial in self.study.get_trials(deepcopy=False):
            if "config" not in trial.user_attrs or "rounds" not in trial.user_attrs:
                continue  # somebody else's
            entry = self._entries.setdefault(Config.from_dict(trial.user_attrs["config"]), Entry())
            if trial.state.is_finished():
                entry.state = trial.state
                entry.earlier |= trial.user_attrs["rounds"]
                continue
            entry.trial = self.storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)
            entry.here |= trial.user_attrs["rounds"]

    @property
    def plan(self) -> Plan | None:
        """The plan of an earlier session; None if there is none."""
        noted = self.study.user_attrs.get("plan")
        return None if noted is None else from_data(Plan, noted, "plan")

    def recall(self, config: Config, steps: int, seeds: Sequence[int]) -> Values | None:
        """The metric `[S]` of a candidate's round; None unless an earlier session has recorded it."""
        entry = self._entries.get(config, Entry())
        values = (entry.earlier | entry.here).get(Round.of(steps, seeds).name)
        self.recalled += steps * len(values or [])
        return None if values is None else to_array(values)

    def tried(self, config: Config) -> int:
        """The number of candidates that have its components; without numbers of their own if it has none."""
        same = (other for other in self._entries if other.components.keys() == config.components.keys())
        return sum(other in self.space or config not in self.space for other in same)

    def begin(self) -> None:
        """Notes the time as the beginning of trials that are reported for the first time after it."""
        self._began = datetime.now()

    def report(self, config: Config, steps: int, seeds: Sequence[int], values: Values) -> None:
        """Writes the metric `[S]` of a candidate's round, unless the study has it."""
        entry, round_ = self._entries.setdefault(config, Entry()), Round.of(steps, seeds)
        if round_.name in entry.earlier or round_.name in entry.here:
            return
        entry.here[round_.name] = to_json(values.tolist())
        with writing():
            if entry.trial is None:
                entry.trial = self.storage.create_new_trial(self._id, self._trial(config, entry))
                return
            self.storage.set_trial_user_attr(entry.trial, "rounds", entry.here)
            if np.isfinite(values).any():
                self.storage.set_trial_intermediate_value(entry.trial, round_.work, float(np.nanmean(values)))

    def _trial(self, config: Config, entry: Entry) -> FrozenTrial:
        """A running trial with the results that no other trial has."""
        trial = create_trial(
            state=TrialState.RUNNING,
            params=self.space.params(config),
            distributions=self.space.distributions_of(config),
            intermediate_values=means(entry.here),
            user_attrs={"name": in_words(config.components), "config": config.to_dict(), "rounds": entry.here},
        )
        trial.datetime_start = self._began
        return trial

    def conclude(self, exported: Config, verdict: Mapping[Config, float], work: int = 0) -> None:
        """Ends all trials after the verdict.

        Args:
            exported: what the search recommends.
            verdict: mean metric on fresh seeds of all finalists.
            work: training steps that each of them took for it.
        """
        for config, entry in self._entries.items():
            value = verdict.get(config, entry.last)
            stands = config == exported or value < verdict[exported]
            if entry.trial is None and config in verdict and entry.state == TrialState.PRUNED and stands:
                with writing():  # an interruption has ended it before
                    entry.trial = self.storage.create_new_trial(self._id, self._trial(config, entry))
            if config in verdict and entry.trial is not None:
                with writing():
                    role = "exported" if config == exported else "finalist"
                    self.storage.set_trial_user_attr(entry.trial, "verdict", role)
                    if work and np.isfinite(value):
                        self.storage.set_trial_intermediate_value(entry.trial, work, value)
            self._finish(config, entry, TrialState.COMPLETE if stands else TrialState.PRUNED, value)

    def _finish(self, config: Config, entry: Entry, state: TrialState, value: float) -> None:
        """Ends a candidate's running trial, if it has one."""
        if entry.trial is None:
            return
        finite = bool(np.isfinite(value))
        state = state if finite else TrialState.FAIL
        with writing():
            if state == TrialState.FAIL and config in self.reasons:
                self.storage.set_trial_user_attr(entry.trial, "failed", self.reasons[config])
            self.storage.set_trial_state_values(entry.trial, state, [value] if finite else None)
        entry.trial, entry.state, entry.earlier, entry.here = None, state, entry.earlier | entry.here, {}

    def name_metric(self, name: str) -> None:
        """Names the value of trials, for other tools."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            with writing():
                self.study.set_metric_names([name])

    def note(self, **facts: Any) -> None:
        """Writes facts about the search as attributes of the study; numbers that are not finite become None."""
        with writing():
            for name, fact in facts.items():
                self.study.set_user_attr(name, to_json(fact))

    def recall_verdict(self, steps: int, seeds: Sequence[int]) -> dict[Config, dict[str, Values]]:
        """The metric `[S]` of every split, by finalist, for those that an earlier session has recorded."""
        noted = self.study.user_attrs.get(VERDICT, {})
        found = noted.get("results", []) if noted.get("round") == Round.of(steps, seeds).name else []
        self.recalled += steps * len(seeds) * len(found)
        return {Config.from_dict(r["config"]): {split: to_array(v) for split, v in r["scores"].items()} for r in found}

    def report_verdict(self, steps: int, seeds: Sequence[int], scores: Mapping[Config, Mapping[str, Values]]) -> None:
        """Writes the results of the verdict's trainings that are done so far."""
        results = [
            {"config": config.to_dict(), "scores": {split: v.tolist() for split, v in by_split.items()}}
            for config, by_split in scores.items()
        ]
        self.note(**{VERDICT: {"round": Round.of(steps, seeds).name, "seeds": len(seeds), "results": results}})

    @property
    def verdict_seeds(self) -> int | None:
        """The number of seeds with which an earlier session began the verdict; None if it did not."""
        seeds: int | None = self.study.user_attrs.get(VERDICT, {}).get("seeds")
        return seeds

    @property
    def refinements(self) -> list[int] | None:
        """How many leaders had variants in each refinement of an earlier session; None if it had no verdict."""
        leaders = self.study.user_attrs.get("refinements")
        return leaders if isinstance(leaders, list) else None  # an earlier version noted their number

    def close(self) -> None:
        """Ends running trials as pruned, so that the study is complete whenever a search ends."""
        with writing():
            for trial_id, trial in running(self.storage, self._id):
                config = trial.user_attrs.get("config")
                if config is not None and (entry := self._entries.get(Config.from_dict(config))):
                    entry.trial = trial_id
        for config, entry in self._entries.items():
            self._finish(config, entry, TrialState.PRUNED, entry.last)
        self._sittings[-1] = replace(self._sittings[-1], ended=now())
        self.note(**{SITTINGS: noted(self._sittings), SEARCHING: None})

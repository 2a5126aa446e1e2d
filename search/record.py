"""Trials in an Optuna study: what has been trained, readable by every Optuna tool, and reused when a search resumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from autoranger.components.config import Config
from autoranger.components.errors import ConfigError, DataError, first_line
from autoranger.search.plain import plain
from autoranger.search.plan import Plan
from autoranger.search.rounds import Round
from autoranger.search.space import Space
from autoranger.search.verdict import Values

JOURNAL = "autoranger.journal"
"""Where studies are kept if nothing else is said."""

FRONT = "-front"
"""What the name of a study with a cost for its second objective ends with."""


def open_storage(place: str | None) -> BaseStorage:
    """The Optuna storage at an URL or in a journal file; DataError where it cannot be opened."""
    place = place or JOURNAL
    try:
        if "://" in place:
            return optuna.storages.get_storage(place)
        with Path(place).open("ab"):
            pass
        check_journal(Path(place))
        return JournalStorage(JournalFileBackend(place))
    except DataError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"cannot open the study storage {place}: {reason}; name another with --storage.") from None


def check_journal(path: Path) -> None:
    """DataError where a file is there, and is no journal of Optuna's."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"SQLite format 3"):
        raise DataError(f"{path} is an SQLite database; write --storage sqlite:///{path}.")
    if start and not start.startswith(b"{"):
        raise DataError(f"{path} is not a journal of studies; name another with --storage.")


class Record:
    """The trials of one search. A candidate is one trial, and each of its rounds an intermediate value.

    An intermediate value's step counts the training steps of the round (steps × seeds); the metric of each seed is in
    the trial's attribute `rounds`. A trial is written when its candidate leaves the race: complete for finalists,
    pruned for the others, failed where every run failed; why any did is in the trial's attribute `failed`.

    Args:
        storage: of the study.
        name: of the study.
        space: of the candidates.
        settings: all that determines the results; a search resumes only with the same.
        resume: whether to continue the study of that name: its values are not trained again.

    Raises:
        ConfigError: where a study of that name exists and is not to be resumed, or cannot be, or is finished.
    """

    def __init__(
        self, storage: BaseStorage, name: str, space: Space, settings: Mapping[str, Any], *, resume: bool
    ) -> None:
        self.storage, self.space, self.known = storage, space, dict[Config, dict[str, list[float | None]]]()
        self._open: dict[Config, dict[Round, Values]] = {}
        self.reasons: dict[Config, str] = {}
        self.recalled = 0
        try:
            if resume:
                self.study = optuna.load_study(study_name=name, storage=storage)
            else:
                self.study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
        except optuna.exceptions.DuplicatedStudyError:
            raise ConfigError(f"study '{name}' exists; continue it with --resume or choose another --study.") from None
        except KeyError:
            raise ConfigError(f"there is no study '{name}' to resume; leave out --resume to begin it.") from None
        settings = plain(settings)  # as a storage returns it
        if resume:
            before = self.study.user_attrs.get("settings", {})
            others = [f"{k} {dumps(before.get(k))}, not {dumps(v)}" for k, v in settings.items() if before.get(k) != v]
            if others:
                raise ConfigError(f"study '{name}' was made with other settings: {'; '.join(others)}. Use the same.")
            if "outcome" in self.study.user_attrs:
                raise ConfigError(
                    f"study '{name}' is finished; see autoranger report {name}, or choose another --study."
                )
            for trial in self.study.get_trials(deepcopy=False):
                config = Config.from_dict(trial.user_attrs["config"])
                self.known.setdefault(config, {}).update(trial.user_attrs["rounds"])
        self.study.set_user_attr("settings", settings)

    @property
    def plan(self) -> Plan | None:
        """The plan of an earlier session."""
        noted = self.study.user_attrs.get("plan")
        return None if noted is None else Plan.from_dict(noted)

    def recall(self, config: Config, steps: int, seeds: Sequence[int]) -> Values | None:
        """The metric `[S]` of a candidate's round where an earlier session has recorded it."""
        values = self.known.get(config, {}).get(Round.of(steps, seeds).name)
        self.recalled += steps * len(values or [])
        return None if values is None else np.array([np.nan if v is None else v for v in values])

    def report(self, config: Config, steps: int, seeds: Sequence[int], values: Values) -> None:
        """Notes the metric `[S]` of a candidate's round."""
        self._open.setdefault(config, {})[Round.of(steps, seeds)] = values

    def finish(self, config: Config, state: TrialState) -> None:
        """Writes a candidate's trial."""
        rounds = self._open.pop(config)
        means = {round_.spent: float(np.nanmean(v)) for round_, v in rounds.items() if np.isfinite(v).any()}
        finished = state if means else TrialState.FAIL
        trial = create_trial(
            state=finished,
            value=means[max(means)] if finished == TrialState.COMPLETE else None,
            params=self.space.params(config),
            distributions=dict(self.space.distributions()),
            intermediate_values=means,
            user_attrs={
                "config": config.to_dict(),
                "rounds": {round_.name: plain(v.tolist()) for round_, v in rounds.items()},
            }
            | ({"failed": self.reasons[config]} if config in self.reasons else {}),
        )
        self.study.add_trial(trial)

    def note(self, **facts: Any) -> None:
        """Writes what is known of the search as attributes of the study; what is not finite becomes None."""
        for name, fact in facts.items():
            self.study.set_user_attr(name, plain(fact))

    def front(self) -> Study:
        """An empty study of metric and cost, beside this one; ConfigError where there is another one of its name."""
        name = self.study.study_name + FRONT
        if name in optuna.get_all_study_names(self.storage):
            before = optuna.load_study(study_name=name, storage=self.storage)
            if before.user_attrs.get("front_of") != self.study.study_name:
                raise ConfigError(f"study '{name}' exists, where the front would go; choose another --study.")
            optuna.delete_study(study_name=name, storage=self.storage)  # of this search, before it was resumed
        study = optuna.create_study(study_name=name, storage=self.storage, directions=["maximize", "minimize"])
        study.set_user_attr("front_of", self.study.study_name)
        return study

    def trade_off(self, study: Study, found: Sequence[tuple[Config, float, float]]) -> None:
        """Writes configs with their metric and cost into a study of the two."""
        for config, metric, cost in found:
            params, distributions = self.space.params(config), self.space.distributions()
            attrs = {"config": config.to_dict()}
            values = [metric, cost]
            study.add_trial(create_trial(values=values, params=params, distributions=distributions, user_attrs=attrs))

    def close(self) -> None:
        """Writes what is still open, as pruned: the study is complete and readable whenever a search ends."""
        for config in list(self._open):
            self.finish(config, TrialState.PRUNED)

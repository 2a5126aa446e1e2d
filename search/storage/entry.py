"""What a study has of a candidate: the results of its rounds, in trials that are finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.trial import TrialState

from autoranger.search.arrays import Values
from autoranger.search.race.rounds import Round

Results = dict[str, list[float | None]]
"""The metric of every seed, None where the run diverged, by the name of the round."""


@dataclass
class Entry:
    """What a study has of a candidate.

    Args:
        trial: number, in the storage, of its trial that is not finished; None where there is none.
        state: of its trial that is finished, if there is one.
        earlier: results of its rounds in finished trials, by the rounds' names.
        here: those in the trial that is not finished.
    """

    trial: int | None = None
    state: TrialState | None = None
    earlier: Results = field(default_factory=dict)
    here: Results = field(default_factory=dict)

    @property
    def last(self) -> float:
        """The mean metric of the last round; NaN where a run diverged, or where there is none."""
        *_, values = [[None], *self.earlier.values(), *self.here.values()]
        return float(to_array(values).mean())


def to_array(values: Sequence[float | None]) -> Values:
    """Results as they were before they were written: NaN for None."""
    return np.array([np.nan if v is None else v for v in values])


def means(results: Results) -> dict[int, float]:
    """The mean metric of each round in which not every run diverged, by what has been spent on it."""
    found = {Round.parse(name): to_array(values) for name, values in results.items()}
    return {r.work: float(np.nanmean(v)) for r, v in found.items() if r is not None and np.isfinite(v).any()}

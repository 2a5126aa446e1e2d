"""What a study knows of a candidate: the results of its rounds, in finished and running trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.trial import TrialState

from autoranger.search.arrays import Values
from autoranger.search.race.rounds import Round

Results = dict[str, list[float | None]]
"""The metric of every seed by the name of the round; None for a run that diverged."""


@dataclass
class Entry:
    """What a study knows of a candidate.

    Args:
        trial: id in the storage of its running trial; None if there is none.
        state: of its finished trial; None if there is none.
        earlier: results in finished trials, by the rounds' names.
        here: results in the running trial.
    """

    trial: int | None = None
    state: TrialState | None = None
    earlier: Results = field(default_factory=dict)
    here: Results = field(default_factory=dict)

    @property
    def last(self) -> float:
        """The mean metric of the last round; NaN if a run diverged or there is no round."""
        *_, values = [[None], *self.earlier.values(), *self.here.values()]
        return float(to_array(values).mean())


def to_array(values: Sequence[float | None]) -> Values:
    """Results as an array, NaN for None."""
    return np.array([np.nan if v is None else v for v in values])


def means(results: Results) -> dict[int, float]:
    """The mean metric of each round in which some run did not diverge, by the work of the round."""
    found = {Round.parse(name): to_array(values) for name, values in results.items()}
    return {r.work: float(np.nanmean(v)) for r, v in found.items() if r is not None and np.isfinite(v).any()}

"""What a race needs of whoever trains its candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autoranger.components.core.config import Config

Trained = dict[str, NDArray[np.float64]]
"""For each split the metric `[K, S]` of the candidates on the seeds, NaN where a training has failed."""


class Trainer(Protocol):
    """Trains candidates from scratch: a `Population`, or a user's own function (`tune.script`)."""

    @property
    def failures(self) -> Mapping[Config, str]:
        """Why candidates have failed."""

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        progress: Callable[[int], None] = lambda done: None,
        report: Callable[[list[Config], Trained], None] = lambda configs, scores: None,
        among: Sequence[Config] = (),
    ) -> Trained:
        """Trains every config with every seed; see `Population.train`."""

"""What a search is about: something that trains candidates, and what a search asks of it before it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.clock import Clock
from autoranger.search.race.plan import Plan
from autoranger.search.race.trainer import Trainer
from autoranger.search.space import HIGHEST_LR, LOWEST_LR, lr_grid

Seeds = Callable[[int], list[int]]
"""Gives that many seeds, none of them twice."""


class About(Protocol):
    """What is trained, as messages and evidence name it. A `Task` is one."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def metric_name(self) -> str:
        """What is to get higher."""
        ...

    @property
    def steps(self) -> int:
        """Length of the trainings that are compared in the end."""
        ...

    @property
    def batch_size(self) -> int | None:
        """Examples per step; None where that is not known."""
        ...

    @property
    def lr_range(self) -> tuple[float, float]:
        """Lowest and highest learning rate to begin with."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        ...


class Subject(Protocol):
    """Something to search an optimizer for: a task's population (`proxy`), or a user's own training (`tune`)."""

    @property
    def about(self) -> About:
        """What it is; its length is known once it is calibrated."""
        ...

    @property
    def objective(self) -> str:
        """What is better, by name; see `search`."""
        ...

    @property
    def trainer(self) -> Trainer:
        """Trains candidates, once it is calibrated."""
        ...

    @property
    def lrs(self) -> Sequence[float]:
        """The grid of learning rates to begin with."""
        ...

    @property
    def learned(self) -> dict[str, Any]:
        """What calibration has found out, now or before a search was interrupted, to be kept with its settings."""
        ...

    def identity(self, arm: Config) -> dict[str, Any]:
        """What must be as it was where a search goes on, besides what it is.

        Args:
            arm: for a short training, where that tells.
        """
        ...

    def calibrate(self, clock: Clock, arms: Sequence[Config], seeds: Seeds) -> None:
        """Tells a clock how fast it trains, and has it end what there is no time for.

        Args:
            clock: of the search.
            arms: full Ranger21 and AdamW.
            seeds: those that a sweep of learning rates uses after that.
        """

    def check(self, arm: Config, clock: Clock, seeds: Seeds) -> None:
        """ConfigError where training makes the metric worse, as far as that can be told before a race.

        Args:
            arm: AdamW.
            clock: of the search.
            seeds: for its trainings.
        """

    def plans(self) -> list[Plan]:
        """What can be done, the cheapest first."""
        ...

    def standard(self, *, listed: bool) -> Plan:
        """What is done without a budget.

        Args:
            listed: whether every subset is to be trained, if they are as few as those of Ranger21.
        """
        ...


def rates(name: str, lr_range: tuple[float, float]) -> list[float]:
    """The grid of learning rates in a range; ConfigError where there is none.

    Args:
        name: of what has the range, in messages.
        lr_range: lowest and highest.
    """
    lrs = lr_grid(*lr_range)
    if not lrs or lrs[0] < LOWEST_LR or lrs[-1] > HIGHEST_LR:
        raise ConfigError(
            f"{name}: no rate of the grid 1e-6, 3e-6, 1e-5, … 1e2 lies in its lr_range {lr_range}; widen it."
        )
    return lrs

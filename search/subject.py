"""The interface between a search and what it trains: a task's proxy model, or a user's own training."""

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
"""Returns the next `n` seeds of a stream; no seed is returned twice."""


class About(Protocol):
    """A description of what is trained, for messages and evidence. A `Task` is one."""

    @property
    def name(self) -> str:
        """The name."""
        ...

    @property
    def score_name(self) -> str:
        """The name of the score; higher is better."""
        ...

    @property
    def steps(self) -> int:
        """Steps of a full training, the kind that the verdict compares."""
        ...

    @property
    def batch_size(self) -> int | None:
        """Examples per step; None if unknown."""
        ...

    @property
    def lr_range(self) -> tuple[float, float]:
        """Lowest and highest learning rate to begin with."""
        ...

    @property
    def device(self) -> torch.device:
        """The device it trains on."""
        ...


class Subject(Protocol):
    """What a search finds an optimizer for: a task (`proxy.Proxy`) or a user's own training (`tune.script.Script`)."""

    @property
    def about(self) -> About:
        """Its description. `steps` may be unknown before `calibrate`."""
        ...

    @property
    def objective(self) -> str:
        """The name of the objective; see `search`."""
        ...

    @property
    def trainer(self) -> Trainer:
        """Trains candidates. Must not be used before `calibrate`."""
        ...

    @property
    def lrs(self) -> Sequence[float]:
        """The grid of learning rates to begin with."""
        ...

    @property
    def learned(self) -> dict[str, Any]:
        """What `calibrate` measured, in this session or an earlier one. It is stored with the settings of the study."""
        ...

    @property
    def scale(self) -> dict[str, Any]:
        """Returns what its trainings are, for those who train at another scale; see `core.proxy`. Empty if unknown."""
        ...

    @property
    def shared(self) -> int | None:
        """The number of validation examples on which all seeds are scored; None if each has its own, or if unknown."""
        ...

    @property
    def origin(self) -> dict[str, str]:
        """Where workers find what it trains, by its kind; empty if that is not known."""
        ...

    def identity(self, arm: Config) -> dict[str, Any]:
        """Returns what must not have changed when a search is resumed, besides its settings.

        Args:
            arm: the config of a short training, if one is part of it.
        """
        ...

    def calibrate(self, clock: Clock, arms: Sequence[Config], seeds: Seeds) -> None:
        """Measures how fast it trains, for the clock, and lets the clock end trainings when the time is up.

        Args:
            clock: the clock of the search.
            arms: full Ranger21 and AdamW.
            seeds: the stream of seeds that the sweep of learning rates uses, too.
        """

    def check(self, arm: Config, clock: Clock, seeds: Seeds) -> None:
        """Raises ConfigError if training makes the metric worse, as far as a few short trainings can tell.

        Args:
            arm: AdamW.
            clock: the clock of the search.
            seeds: the stream of seeds to train with.
        """

    def plans(self, most: int) -> list[Plan]:
        """Returns the plans to choose from, cheapest first, with so many entrants at most."""
        ...

    def standard(self, most: int) -> Plan:
        """Returns the plan of a search without a budget."""
        ...


def rates(name: str, lr_range: tuple[float, float]) -> list[float]:
    """Returns the grid's learning rates in a range.

    Args:
        name: whose range it is, for messages.
        lr_range: the lowest and the highest rate.

    Raises:
        ConfigError: if the range is upside down, or no rate of the grid lies in it.
    """
    if lr_range[0] > lr_range[1]:
        raise ConfigError(f"{name}: lr_range is {lr_range}; the lower rate comes first.")
    lrs = lr_grid(*lr_range)
    if not lrs or lrs[0] < LOWEST_LR or lrs[-1] > HIGHEST_LR:
        raise ConfigError(
            f"{name}: no rate of the grid 1e-6, 3e-6, 1e-5, … 1e2 lies in its lr_range {lr_range}; widen it."
        )
    return lrs

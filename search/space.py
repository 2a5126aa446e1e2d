"""The search space: every subset of some components, each with learning rates from a half-decade grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

from autoranger.components.component import Component
from autoranger.components.config import Config
from autoranger.components.presets import RANGER21

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LOWEST_LR, HIGHEST_LR = 1e-6, 1e2
"""The grid of learning rates is extended up to here."""


@dataclass(frozen=True)
class Space:
    """All subsets of `components`, at their default hyperparameters. An *arm* is one subset, its lr still open.

    Args:
        components: ids; those of Ranger21 by default.
        base: gives betas, eps, weight decay and the settings of components that are always on.
    """

    components: tuple[str, ...] = RANGER21
    base: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        for name in self.components:
            Component.named(name)

    def arms(self) -> list[Config]:
        """Every subset, from none to all."""
        chosen = [c for size in range(len(self.components) + 1) for c in combinations(self.components, size)]
        return [self.arm(names) for names in chosen]

    def arm(self, names: Sequence[str]) -> Config:
        """The arm with just these components of the space on."""
        return replace(self.base, components={**self.base.components, **{name: {} for name in names}})

    @property
    def default(self) -> Config:
        """The arm with every component on: full Ranger21 in the default space."""
        return self.arm(self.components)

    @property
    def plain(self) -> Config:
        """The arm with no component on: AdamW."""
        return self.arm(())

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The space as Optuna knows it: a switch for each component, and the learning rate."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        switches = {name: CategoricalDistribution((False, True)) for name in self.components}
        return {"lr": FloatDistribution(LOWEST_LR, HIGHEST_LR, log=True), **switches}

    def params(self, config: Config) -> dict[str, bool | float]:
        """A candidate as Optuna's parameters."""
        return {"lr": config.lr, **{name: name in config.components for name in self.components}}


def lr_grid(low: float, high: float) -> list[float]:
    """The half-decade grid (1, 3, 10, 30, …) from `low` to `high`, both included."""
    exponents = range(-12, 6)
    return [
        lr for e in exponents for lr in (float(f"1e{e}"), float(f"3e{e}")) if low <= lr * 1.01 and lr <= high * 1.01
    ]


def neighbours(lr: float) -> list[float]:
    """The grid's values next to this one, as far as the grid is extended."""
    grid = lr_grid(LOWEST_LR, HIGHEST_LR)
    at = grid.index(lr)
    return grid[max(0, at - 1) : at] + grid[at + 1 : at + 2]

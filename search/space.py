"""The search space: subsets of components, each with learning rates from a half-decade grid."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autoranger.components.core.component import Component, conflicts, registry
from autoranger.components.core.config import Config
from autoranger.components.presets import MODERN, PRESETS, RANGER21
from autoranger.search.ledger import ledger
from autoranger.search.numbers import unusual, with_numbers

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LOWEST_LR, HIGHEST_LR = 1e-6, 1e2
"""Bounds up to which the grid of learning rates is extended."""

EXTENDED = "extended"

RECORDED = Path(__file__).with_name("recorded.toml")
"""The file that `recorded` reads."""

SPACES = {"ranger21": RANGER21, "subsets": RANGER21, "modern": MODERN}
"""Spaces by name, "subsets" being the old name of "ranger21"; besides these there is `EXTENDED`, all that there are."""

ENUMERABLE = 12
"""Most components of which all subsets are listed; of more, subsets are drawn at random."""

FLIP = 0.15
"""Probability that a component of an arm near the default is switched."""


@dataclass(frozen=True)
class Space:
    """All valid subsets of some components. An *arm* is a subset; a *candidate* is an arm with a learning rate.

    Args:
        components: ids; those of Ranger21 by default. `Space.extended()` has all components, `Space.of` takes a name.
        base: its betas, eps and weight decay are those of all candidates.
    """

    components: tuple[str, ...] = RANGER21
    base: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        for name in self.components:
            Component.named(name)

    @classmethod
    def extended(cls) -> Space:
        """The space of all components there are, those of other installed packages among them."""
        registry.discover()
        return cls(tuple(registry))

    @classmethod
    def of(cls, what: Space | str | Iterable[str]) -> Space:
        """The space of a name ("ranger21", "modern", "extended"), or of ids: a list, or one word with commas.

        >>> Space.of("ranger21") == Space.of("subsets") == Space()
        True
        >>> Space.of("lookahead,nesterov").components
        ('lookahead', 'nesterov')

        Raises:
            ConfigError: where there is no space or component of a name.
        """
        if isinstance(what, Space):
            return what
        if what == EXTENDED:
            return cls.extended()
        if isinstance(what, str) and what in SPACES:
            return cls(SPACES[what])
        names = [name.strip() for name in what.split(",")] if isinstance(what, str) else list(what)
        for name in names:
            Component.named(name, (*SPACES, EXTENDED))
        return cls(tuple(dict.fromkeys(names)))

    def adding(self, names: Iterable[str]) -> Space:
        """This space with further components."""
        return replace(self, components=tuple(dict.fromkeys([*self.components, *names])))

    @property
    def size(self) -> int:
        """The number of arms; an upper bound if they are too many to list."""
        return len(self._every()) if self._enumerable else 2 ** len(self.components)

    def arms(self, most: int, seed: int) -> list[Config]:
        """All arms if there are at most `most`, otherwise a random choice of that many.

        From a space that can be listed they are drawn evenly. From a larger one come the landmarks, and then in turn
        random neighbours of the default and subsets that are entirely random.
        """
        rng = np.random.default_rng(seed)
        if self._enumerable:
            every = self._every()
            chosen = range(len(every)) if len(every) <= most else rng.choice(len(every), most, replace=False)
            return [every[i] for i in sorted(chosen)]
        arms = dict.fromkeys(self.landmarks)
        while len(arms) < most:
            arms[self.draw(rng, near=len(arms) % 2 == 0)] = None
        return list(arms)[:most]

    def arm(self, names: Iterable[str]) -> Config:
        """The arm with these components on, and no others."""
        return replace(self.base, components={name: {} for name in names})

    @property
    def landmarks(self) -> list[Config]:
        """What to try first: arms that were best on other tasks, the default, plain AdamW, presets in the space."""
        known = [self.arm(names) for names in recorded()]
        presets = [replace(Config.preset(name), lr=self.base.lr) for name in PRESETS]
        arms = dict.fromkeys([*self.proven, *known, self.default, self.plain, *presets])
        return [arm for arm in arms if arm.components.keys() <= set(self.components)]

    @property
    def proven(self) -> list[Config]:
        """The arms of newer components that a search begins with; see `Ledger.sets`."""
        return [self.arm(names) for names in ledger().sets if set(names) <= set(self.components)]

    @property
    def _enumerable(self) -> bool:
        return len(self.components) <= ENUMERABLE

    def _every(self) -> list[Config]:
        subsets = (c for size in range(len(self.components) + 1) for c in combinations(self.components, size))
        return [self.arm(names) for names in subsets if not conflicts(names)]

    def draw(self, rng: np.random.Generator, *, near: bool = False) -> Config:
        """A random arm: each component on with probability ½, or, `near` the default, mostly as in the default."""
        order = [str(name) for name in rng.permutation(self.components)]
        chance = {name: (1 - FLIP if name in RANGER21 else FLIP) if near else 0.5 for name in order}
        return self.arm(compatible(name for name in order if rng.random() < chance[name]))

    @property
    def default(self) -> Config:
        """Full Ranger21, which is compared with the arms of any space, also of one without some of its components."""
        return self.arm(RANGER21)

    @property
    def plain(self) -> Config:
        """The arm with no component on: AdamW."""
        return self.arm(())

    def distributions(self, low: float = LOWEST_LR, high: float = HIGHEST_LR) -> dict[str, BaseDistribution]:
        """The space for Optuna: a switch for each component, and a learning rate between two bounds."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        switches = {name: CategoricalDistribution((False, True)) for name in self.components}
        return {"lr": FloatDistribution(low, high, log=True), **switches}

    def config(self, params: Mapping[str, Any]) -> Config:
        """A candidate from Optuna's parameters."""
        arm = self.arm(name for name, value in params.items() if name in registry and value)
        return replace(with_numbers(arm, params), lr=params["lr"])

    def subset(self, config: Config) -> Config:
        """The arm that a candidate is of."""
        return replace(config, lr=self.base.lr)

    def params(self, config: Config) -> dict[str, Any]:
        """A candidate as Optuna's parameters. What a baseline has besides the space's choices has a name, too."""
        switches = {name: name in config.components for name in (*self.components, *config.components)}
        return {"lr": config.lr, **switches, **unusual(config.to_dict(), self.base)}

    def __contains__(self, config: Config) -> bool:
        """Whether the space has this candidate, at some learning rate."""
        return config.components.keys() <= set(self.components) and not unusual(config.to_dict(), self.base)

    def distributions_of(self, config: Config) -> dict[str, BaseDistribution]:
        """The space for Optuna, with whatever else `params` has of a candidate."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        space = self.distributions()
        for name, value in self.params(config).items():
            if name not in space and isinstance(value, bool):
                space[name] = CategoricalDistribution((False, True))
            elif name not in space and isinstance(value, str):
                component, key = name.split(".")
                space[name] = CategoricalDistribution(Component.named(component).hypers[key].choices)
            elif name not in space:
                space[name] = FloatDistribution(0, max(1.0, value))
        return space


@cache
def recorded() -> tuple[tuple[str, ...], ...]:
    """The subsets that were best on tasks with a table of all subsets, best first (studies/08_sample_efficiency)."""
    found = tomllib.loads(RECORDED.read_text(encoding="utf-8"))["subsets"]
    return tuple(tuple(names) for names in found)


def compatible(names: Iterable[str]) -> list[str]:
    """The components without those that an earlier one excludes."""
    kept: list[str] = []
    for name in names:
        if not any(registry[name].excludes(registry[other]) for other in kept):
            kept.append(name)
    return kept


def in_words(components: Iterable[str]) -> str:
    """A subset of components in a few words, relative to the nearest of full Ranger21 and AdamW."""
    names = list(components)
    changes = changed_from(RANGER21, names)
    return " ".join(["ranger21", *changes] if len(changes) < len(names) else ["adamw", *changed_from((), names)])


def changed_from(base: Sequence[str], components: Iterable[str]) -> list[str]:
    """What makes another subset of one: `− name` for each component taken out, then `+ name` for each one added."""
    names = list(components)
    return [f"− {name}" for name in base if name not in names] + [f"+ {name}" for name in names if name not in base]


def lr_grid(low: float, high: float) -> list[float]:
    """The half-decade grid (1, 3, 10, 30, …) from `low` to `high`, both included."""
    exponents = range(-12, 6)
    return [
        lr for e in exponents for lr in (float(f"1e{e}"), float(f"3e{e}")) if low <= lr * 1.01 and lr <= high * 1.01
    ]


def neighbours(lr: float) -> list[float]:
    """The values next to this one on the grid, as far as it may be extended."""
    grid = lr_grid(LOWEST_LR, HIGHEST_LR)
    at = grid.index(lr)
    return grid[max(0, at - 1) : at] + grid[at + 1 : at + 2]

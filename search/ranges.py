"""The ranges in which a search looks for a config's numbers, and configs with numbers drawn from them.

>>> found = ranges(Config(lr=0.01, components={"lookahead": {}}), steps=300)
>>> list(found)
['lr', 'weight_decay', 'beta1', 'beta2', 'lookahead.k', 'lookahead.alpha']
>>> found["lookahead.k"].at(0.0), found["lookahead.k"].at(0.5), found["beta2"].at(0.0)
(2, 6, 0.9)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from autoranger.components.core.component import registry
from autoranger.components.core.config import Config
from autoranger.components.core.hyper import Hyper, Setting
from autoranger.search.numbers import with_numbers
from autoranger.search.space import HIGHEST_LR, LOWEST_LR

BETWEEN = 10**0.25
"""Factor by which a learning rate may change: half of a step of the grid, on which it was chosen."""

DECAYED = (0.03, 10.0)
"""Lowest and highest product of learning rate, weight decay and steps: by about so many factors of e do weights decay
in a training, if the rate is constant and gradients do nothing (Wang and Aitchison 2024, arXiv 2405.13698)."""

MEMORIES = {"beta1": (3.0, 30.0), "beta2": (10.0, 1000.0)}
"""Steps of a moment's memory, 1 / (1 − β)."""


@dataclass(frozen=True)
class Range:
    """The range of a number.

    Args:
        low, high: of the number or, if it is a `decay` β, of 1 / (1 − β).
        log: whether it is even on a logarithmic scale.
        whole: whether it is a whole number.
        decay: whether it is a β.
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False
    decay: bool = False

    @classmethod
    def of(cls, hyper: Hyper) -> Range | None:
        """The range that a hyperparameter declares; None if it has none."""
        if hyper.low is None or hyper.high is None:
            return None
        return cls(hyper.low, hyper.high, hyper.log, hyper.integer)

    def at(self, share: float) -> int | float:
        """The number at a share of the way from `low` to `high`, rounded: nobody needs more than two digits."""
        if self.log:
            value = float(f"{self.low * (self.high / self.low) ** share:.2g}")
        else:
            value = round(self.low + share * (self.high - self.low), 1 - math.floor(math.log10(self.high - self.low)))
            value = min(max(value, self.low), self.high)  # two digits of 0.999 are 1
        if self.decay:
            return round(1 - float(f"{1 / value:.2g}"), 6)
        return round(value) if self.whole else value


def ranges(config: Config, steps: int) -> dict[str, Range]:
    """Where to look for the numbers of a config (see `numbers`), and for its learning rate, in trainings of `steps`.

    The weight decay's range depends on what the components do with it (`Component.decay_unit`).
    """
    found = {"lr": Range(max(config.lr / BETWEEN, LOWEST_LR), min(config.lr * BETWEEN, HIGHEST_LR))}
    unit = math.prod(registry[name].decay_unit for name in config.components)
    if unit and config.lr:
        low, high = (decayed * unit / (config.lr * steps) for decayed in DECAYED)
        found["weight_decay"] = Range(low, high)
    found |= {name: Range(low, high, decay=True) for name, (low, high) in MEMORIES.items()}
    for name in config.components:
        own = {f"{name}.{key}": Range.of(hyper) for key, hyper in registry[name].hypers.items()}
        found |= {key: known for key, known in own.items() if known is not None}
    return found


def variant(config: Config, steps: int, rng: np.random.Generator) -> Config:
    """The config with some of its numbers drawn anew.

    How many is drawn, too: where the config is nearly right a change of one number is better than one of all, and where
    it is not the other way round (studies/20_refinement).
    """
    found, chance = ranges(config, steps), rng.random()
    names = [name for name in found if rng.random() < chance]
    if not {*names} - {"lr"}:
        names.append(str(rng.choice([name for name in found if name != "lr"])))
    drawn: dict[str, Setting] = {name: found[name].at(rng.random()) for name in names}
    return replace(with_numbers(config, drawn), lr=float(drawn.get("lr", config.lr)))

"""The worth of every subset of some switches, as a Gaussian process sees it that has learned from a study's trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study

from autoranger.components.core.errors import ConfigError
from autoranger.search.arrays import Values
from autoranger.search.samplers.base import ModelSampler
from autoranger.search.samplers.encoding import Axis, Encoding, Points
from autoranger.search.samplers.process import Data, Process

MOST_SWITCHES = 12
"""Switches of which all subsets are looked at, at most."""

LEVELS = 9
"""Values at which a continuous learning rate is looked at."""

MOST_POINTS = 4096
"""Subsets × learning rates of which draws are taken, at most."""

MOST_FITTED = 300
"""Trials from which the model's parameters are set; it learns from all. The time for setting them is cubic."""

FLOOR = 0.1
"""Quantile of the values below which the model does not look: it is to explain what is good, not what fails."""

DEPTH = 3.0
"""How far below the median the model looks, in units of how far the best is above it."""

TRIED = 3
"""Settings at which a subset has been tried before its best value counts as what it is worth."""


def is_switch(distribution: BaseDistribution) -> bool:
    """Whether a parameter is False or True."""
    return isinstance(distribution, CategoricalDistribution) and set(distribution.choices) == {False, True}


def switches(space: Mapping[str, BaseDistribution]) -> list[str]:
    """The parameters that are False or True."""
    return [name for name, distribution in space.items() if is_switch(distribution)]


def draws(study: Study, sampler: ModelSampler, components: Sequence[str], count: int) -> Values:
    """Draws from the posterior of the worth of subsets, higher is better, in the objective's units.

    The worth is the expected value at the best setting of the parameters that are no switches (the learning rate).
    Where subsets × settings are too many, each subset is looked at where the model's mean is best.

    Args:
        study: of one objective.
        sampler: reads the study, and gives the random numbers.
        components: n switches; others are off.
        count: D draws.

    Returns:
        the draws `[D, 2^n]`, component i in those subsets whose number has bit i.

    Raises:
        ConfigError: where the study has several objectives or no finite value.
    """
    space = sampler.infer_relative_search_space(study, None)
    history = sampler.history(study, None, space)
    finite = np.isfinite(history.values)
    if len(study.directions) > 1 or not finite.any():
        raise ConfigError("only a study of one objective, with a completed trial, has a model.")
    encoding = Encoding(space)
    moved = floored(encoding, history.rows, history.values)
    center, spread = moved.mean(), moved.std() or 1.0
    values = (moved - center) / spread
    process, data = Process(encoding.choices), Data.of(history.rows, values)
    part = sampler.rng.permutation(len(values))[:MOST_FITTED]
    process.fit(data if len(part) == len(values) else Data.of(history.rows[part], values[part]))
    blocks = list(points(encoding, components))
    kept = max(1, MOST_POINTS >> len(components))
    rows = np.stack(blocks, axis=1)
    if len(blocks) > kept:
        means = np.stack([process.posterior(data, block)[0] for block in blocks], axis=1)
        rows = np.take_along_axis(rows, np.argsort(-means, axis=1)[:, :kept, None], axis=1)
    drawn = process.sample(data, rows.reshape(-1, rows.shape[-1]), count, sampler.rng)
    worth: Values = center + spread * drawn.reshape(count, *rows.shape[:2]).max(axis=-1)
    return worth


def floored(encoding: Encoding, rows: Points, values: Values) -> Values:
    """Values `[n]` of points `[n, P]`, those that are far below the good ones, or not finite, moved up.

    A learning rate that is ten times too high costs more than all subsets differ, and half of the candidates of a large
    space fail: a model of how they fail knows little of the others. The floor is `DEPTH` times as far below the median
    as the best is above it, but not above the best value of any subset that has been tried at several settings, and not
    below the `FLOOR` quantile.
    """
    top, middle, low = np.quantile(values[np.isfinite(values)], (1.0, 0.5, FLOOR))
    subsets, index = np.unique(rows[:, encoding.choices > 0], axis=0, return_inverse=True)
    best = np.full(len(subsets), -np.inf)
    np.maximum.at(best, index.reshape(-1), values)
    tried = best[np.bincount(index.reshape(-1)) >= TRIED]
    moved: Values = np.maximum(values, max(low, min([middle - DEPTH * (top - middle), *tried])))
    return moved


def points(encoding: Encoding, components: Sequence[str]) -> Iterator[Points]:
    """All subsets as points `[2^n, P]`, once for each setting of the parameters that are no switches."""
    distributions = {name: axis.distribution for name, axis in encoding.axes.items()}
    off = dict.fromkeys(switches(distributions), False)
    others = {name: settings(axis) for name, axis in encoding.axes.items() if name not in off}
    for setting in product(*others.values()):
        fixed = off | dict(zip(others, setting, strict=True))
        yield np.stack(
            [
                encoding.encode(fixed | {name: bool(number >> i & 1) for i, name in enumerate(components)})
                for number in range(2 ** len(components))
            ]
        )


def settings(axis: Axis) -> list[Any]:
    """The values of a parameter, some of them for a continuous one."""
    levels = np.linspace(0, 1, LEVELS) if axis.levels is None else axis.levels
    return [axis.decode(float(x)) for x in levels]

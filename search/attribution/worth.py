"""The worth of every subset of some switches, by a Gaussian process fitted to a study's trials."""

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
"""Most switches of which all subsets are evaluated."""

LEVELS = 9
"""Number of values at which a continuous parameter is evaluated."""

MOST_POINTS = 4096
"""Most points (subsets × learning rates) of a draw."""

MOST_FITTED = 300
"""Most trials to which the model's parameters are fitted, in cubic time. The model itself is conditioned on all."""

FLOOR = 0.1
"""Quantile to which lower values may be raised: the model has to explain what is good, not what fails."""

DEPTH = 3.0
"""Distance of the floor below the median, in units of the best value's distance above it."""

TRIED = 3
"""Fewest settings at which a subset must have been tried for its best value to bound the floor."""


def is_switch(distribution: BaseDistribution) -> bool:
    """Whether a parameter is False or True."""
    return isinstance(distribution, CategoricalDistribution) and set(distribution.choices) == {False, True}


def switches(space: Mapping[str, BaseDistribution]) -> list[str]:
    """The parameters that are False or True."""
    return [name for name, distribution in space.items() if is_switch(distribution)]


def draws(study: Study, sampler: ModelSampler, components: Sequence[str], count: int) -> Values:
    """Draws from the posterior of the worth of subsets, higher is better, in the objective's units.

    The worth of a subset is the expected value at the best setting of the other parameters (the learning rate). If
    subsets × settings are too many, each subset is evaluated at the settings with the best posterior mean.

    Args:
        study: of one objective.
        sampler: reads the study, and draws the random numbers.
        components: n switches; all others are off.
        count: D draws.

    Returns:
        the draws `[D, 2^n]`, component i in those subsets whose number has bit i.

    Raises:
        ConfigError: if the study has several objectives or no finite value.
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
    """Values `[n]` of points `[n, P]`, raised to a floor if they are far below the good ones or not finite.

    A learning rate that is ten times too high costs more than all differences between subsets, and half of the
    candidates of a large space fail: a model that explains how they fail knows little about the others. The floor is
    `DEPTH` times as far below the median as the best is above it, but not above the best value of any subset that has
    been tried at several settings, and not below the `FLOOR` quantile.
    """
    top, middle, low = np.quantile(values[np.isfinite(values)], (1.0, 0.5, FLOOR))
    subsets, index = np.unique(rows[:, encoding.choices > 0], axis=0, return_inverse=True)
    best = np.full(len(subsets), -np.inf)
    np.maximum.at(best, index.reshape(-1), values)
    tried = best[np.bincount(index.reshape(-1)) >= TRIED]
    moved: Values = np.maximum(values, max(low, min([middle - DEPTH * (top - middle), *tried])))
    return moved


def points(encoding: Encoding, components: Sequence[str]) -> Iterator[Points]:
    """All subsets as points `[2^n, P]`, once for each setting of the other parameters."""
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
    """The values at which a parameter is evaluated."""
    levels = np.linspace(0, 1, LEVELS) if axis.levels is None else axis.levels
    return [axis.decode(float(x)) for x in levels]

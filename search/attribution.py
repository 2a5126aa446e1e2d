"""What each component contributes: main effects, interactions of pairs, Shapley values, all with intervals.

The worth v(S) of a subset S is its expected metric at its own best learning rate. Of a component i among n,

- the *main effect* is the mean of v(S ∪ i) − v(S) over all S without i (Banzhaf's value),
- the *interaction* with j is the mean of v(S ∪ ij) − v(S ∪ i) − v(S ∪ j) + v(S) over all S without both,
- the *Shapley value* is the mean of v(S ∪ i) − v(S) over all orders in which components may be switched on, S being
  what is on before i (Shapley 1953). The values add up to v(all) − v(none): they divide what the whole has gained.

All three are linear in v, so they follow exactly from a complete table, and from draws of v elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from scipy import stats

from autoranger.components.errors import ConfigError
from autoranger.search.samplers.bayes import BayesSampler
from autoranger.search.samplers.encoding import Axis
from autoranger.search.table import MOST, Table
from autoranger.search.verdict import LEVEL

Values = NDArray[np.float64]

DRAWS = 400
"""Of the worth of all subsets, for intervals."""

LEVELS = 9
"""Values at which a continuous learning rate is looked at."""

MOST_POINTS = 4096
"""Subsets × learning rates of which draws are taken, at most."""


@dataclass(frozen=True)
class Effect:
    """One contribution, in units of the metric.

    Args:
        components: one, or two for an interaction.
        effect: the estimate.
        low, high: its confidence interval.
    """

    components: tuple[str, ...]
    effect: float
    low: float
    high: float


@dataclass(frozen=True)
class Attribution:
    """What the components of a space contribute.

    Args:
        none, all: worth of the subset with no component, and of that with all.
        main, pairs, shapley: the effects, in the order of the components.
        confidence: of each interval.
    """

    none: float
    all: float
    main: list[Effect]
    pairs: list[Effect]
    shapley: list[Effect]
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def from_table(table: Table, *, level: float = LEVEL, seed: int = 0) -> Attribution:
    """The contributions in a complete table.

    Intervals are Student's, with the deviation of a bootstrap over seeds: every draw takes as many seeds with
    replacement and chooses each subset's best learning rate anew. A run that has diverged counts as the table's worst.

    Args:
        table: two seeds or more.
        level: 1 − confidence of each interval.
        seed: of the bootstrap.

    Raises:
        ConfigError: for a table with a single seed.
    """
    values = np.nan_to_num(table.final, nan=np.nanmin(table.final))
    count = values.shape[-1]
    if count < 2:
        raise ConfigError("intervals need a table with two seeds or more.")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count
    draws = np.stack([(values @ w).max(axis=-1) for w in weights])
    # A bootstrap of n seeds has the variance of n rather than n − 1 degrees of freedom.
    quantile = stats.t.ppf(1 - level / 2, count - 1) * (count / (count - 1)) ** 0.5
    return attribute(table.components, table.means.max(axis=-1), draws, quantile, level)


def from_study(study: Study, sampler: BayesSampler, *, level: float = LEVEL, count: int = DRAWS) -> Attribution:
    """The contributions as a sampler's model sees them after a study.

    Components are the parameters that are False or True. Others (the learning rate) are at their best for each subset.

    Args:
        study: of one objective.
        sampler: its model is asked.
        level: 1 − confidence of each interval.
        count: draws from the posterior.

    Raises:
        ConfigError: where the study has no model yet, no or too many such parameters, or several other ones.
    """
    space = sampler.infer_relative_search_space(study, None)
    components = [name for name, d in space.items() if is_switch(d)]
    others = {name: choices(Axis(d)) for name, d in space.items() if name not in components}
    elsewhere = list(product(*others.values()))
    if not 0 < len(components) <= MOST or len(elsewhere) << len(components) > MOST_POINTS:
        raise ConfigError(
            f"{len(components)} switches with {len(elsewhere)} settings of the rest are no or too many subsets."
        )
    points = [
        {name: bool(number >> i & 1) for i, name in enumerate(components)} | dict(zip(others, rest, strict=True))
        for number in range(2 ** len(components))
        for rest in elsewhere
    ]
    draws = sampler.draws(study, points, count).reshape(count, -1, len(elsewhere)).max(axis=-1)
    return attribute(components, draws.mean(axis=0), draws, float(stats.norm.ppf(1 - level / 2)), level)


def is_switch(distribution: BaseDistribution) -> bool:
    """Whether a parameter is False or True."""
    return isinstance(distribution, CategoricalDistribution) and set(distribution.choices) == {False, True}


def choices(axis: Axis) -> list[Any]:
    """The values of a parameter, some of them for a continuous one."""
    levels = np.linspace(0, 1, LEVELS) if axis.levels is None else axis.levels
    return [axis.decode(float(x)) for x in levels]


def attribute(
    components: Sequence[str], worth: Values, draws: Values, quantile: float, level: float = LEVEL
) -> Attribution:
    """The contributions to a game.

    Args:
        components: n names.
        worth: of each subset `[2^n]`, component i in those whose number has bit i.
        draws: of `worth` `[D, 2^n]`, whose deviation is that of the estimate.
        quantile: half the width of an interval, in standard deviations.
        level: 1 − confidence.
    """

    def effects(contrasts: dict[tuple[int, ...], Values]) -> list[Effect]:
        found = []
        for players, contrast in contrasts.items():
            effect, half = float(contrast @ worth), quantile * float((draws @ contrast).std(ddof=1))
            found.append(Effect(tuple(components[i] for i in players), effect, effect - half, effect + half))
        return found

    n = len(components)
    return Attribution(
        none=float(worth[0]),
        all=float(worth[-1]),
        main=effects({(i,): main_contrast(n, i) for i in range(n)}),
        pairs=effects({(i, j): pair_contrast(n, i, j) for i, j in combinations(range(n), 2)}),
        shapley=effects({(i,): shapley_contrast(n, i) for i in range(n)}),
        confidence=1 - level,
    )


def signs(n: int, i: int) -> Values:
    """1 for the subsets of n components that have component i, −1 for the others `[2^n]`."""
    return np.where(np.arange(2**n) >> i & 1, 1.0, -1.0)


def main_contrast(n: int, i: int) -> Values:
    """Weights `[2^n]` of the worths in the main effect of component i."""
    contrast: Values = signs(n, i) / 2 ** (n - 1)
    return contrast


def pair_contrast(n: int, i: int, j: int) -> Values:
    """Weights `[2^n]` of the worths in the interaction of components i and j."""
    contrast: Values = signs(n, i) * signs(n, j) / 2 ** (n - 2)
    return contrast


def shapley_contrast(n: int, i: int) -> Values:
    """Weights `[2^n]` of the worths in the Shapley value of component i."""
    sizes = np.array([number.bit_count() for number in range(2**n)])
    others = sizes - (np.arange(2**n) >> i & 1)
    chances = np.array([1 / (n * comb(n - 1, size)) for size in range(n)])
    contrast: Values = signs(n, i) * chances[others]
    return contrast

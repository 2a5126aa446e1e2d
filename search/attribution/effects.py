"""What each component contributes: main effects, interactions of pairs, Shapley values, all with intervals.

The worth v(S) of a subset S is its expected metric at its own best learning rate. Of a component i among n,

- the *main effect* is the mean of v(S ∪ i) − v(S) over all S without i (Banzhaf's value),
- the *interaction* with j is the mean of v(S ∪ ij) − v(S ∪ i) − v(S ∪ j) + v(S) over all S without both,
- the *Shapley value* is the mean of v(S ∪ i) − v(S) over all orders in which components may be switched on, S being
  what is on before i (Shapley 1953). The values add up to v(all) − v(none).

All three are linear in v, so they follow exactly from a complete table, and from draws of v elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.study import Study, create_study
from optuna.trial import TrialState, create_trial
from scipy.special import ndtri, stdtrit

from autoranger.components.core.errors import ConfigError, unknown
from autoranger.search.arrays import Values
from autoranger.search.attribution.sample import LR, Sample
from autoranger.search.attribution.table import Table
from autoranger.search.attribution.worth import MOST_SWITCHES, draws, switches
from autoranger.search.samplers.base import STARTUP, ModelSampler
from autoranger.search.samplers.bayes import BayesSampler
from autoranger.search.verdict.statistics import LEVEL

DRAWS = 400
"""Number of draws of the worth of all subsets, for intervals."""

MOST_RATES = 32
"""Most learning rates of a round that are treated as a list; with more they are a continuous scale."""


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
    quantile = stdtrit(count - 1, 1 - level / 2) * (count / (count - 1)) ** 0.5
    return attribute(table.components, table.means.max(axis=-1), draws, quantile, level)


def from_study(
    study: Study,
    sampler: ModelSampler,
    *,
    components: Sequence[str] | None = None,
    level: float = LEVEL,
    count: int = DRAWS,
) -> Attribution:
    """The contributions by a model of a study's trials (see `worth`).

    Components are the parameters that are False or True. Others (the learning rate) take their best value for each
    subset.

    Args:
        study: of one objective.
        sampler: reads the study, and gives the random numbers.
        components: those to attribute to, at most twelve, with all others off; all components if None.
        level: 1 − confidence of each interval.
        count: draws from the posterior.

    Raises:
        ConfigError: if the study has no completed trial, or no such components, or too many of them.
    """
    known = switches(sampler.infer_relative_search_space(study, None))
    players = known if components is None else list(components)
    for name in players:
        if name not in known:
            raise unknown("component", name, known)
    if not 0 < len(players) <= MOST_SWITCHES:
        raise ConfigError(f"an attribution needs 1 to {MOST_SWITCHES} switches, not {len(players)}; name them.")
    drawn = draws(study, sampler, players, count)
    return attribute(players, drawn.mean(axis=0), drawn, float(ndtri(1 - level / 2)), level)


def from_sample(sample: Sample, components: Sequence[str] | None = None, *, level: float = LEVEL) -> Attribution:
    """The contributions in one round of a search (see `sample.largest_sample`), in the order of the components.

    The intervals have two parts: how well the model knows the worth of subsets on the seeds of the round, and, if the
    search had rounds with several seeds, how much effects differ between seeds (see `seeds`). In races on our tables
    (studies/07_tables) 95% intervals covered 88 to 98% of the effects over all seeds. Without the second part the
    intervals hold for the seeds of the round alone.

    Args:
        sample: the round.
        components: as for `from_study`.
        level: 1 − confidence of each interval.

    Raises:
        ConfigError: for a round with too few candidates or with one subset, and as `from_study`.
    """
    count = int(np.isfinite(sample.values).sum())
    if count < STARTUP:
        raise ConfigError(f"{count} candidates that did not diverge are too few for a model; it needs {STARTUP}.")
    if len(set(sample.subsets)) < 2:
        raise ConfigError("all candidates are one subset at several rates, which says nothing about components.")
    players = [name for name in sample.components if components is None or name in components]
    own = from_study(as_study(sample), BayesSampler(seed=0), components=players, level=level)
    return widened(own, (sample.between or 0.0) / sample.round.seeds)


def widened(attribution: Attribution, variance: float) -> Attribution:
    """The attribution with intervals widened by an additional variance of the effects."""
    more = float(ndtri((1 + attribution.confidence) / 2)) * variance**0.5

    def wide(effects: list[Effect]) -> list[Effect]:
        halves = [float(np.hypot(e.high - e.effect, more)) for e in effects]
        return [replace(e, low=e.effect - h, high=e.effect + h) for e, h in zip(effects, halves, strict=True)]

    main, pairs, shapley = map(wide, (attribution.main, attribution.pairs, attribution.shapley))
    return replace(attribution, main=main, pairs=pairs, shapley=shapley)


def as_study(sample: Sample) -> Study:
    """A round of a search as a study in memory, with one trial for each candidate, failed if it diverged."""
    rates = sorted({float(lr) for lr in sample.lrs})
    lr: BaseDistribution = CategoricalDistribution(rates)
    if len(rates) > MOST_RATES:
        lr = FloatDistribution(rates[0], rates[-1], log=True)
    switch = CategoricalDistribution((False, True))
    distributions: dict[str, BaseDistribution] = {LR: lr, **dict.fromkeys(sample.components, switch)}
    study = create_study(direction="maximize", storage=InMemoryStorage())
    study.add_trials(
        create_trial(
            state=TrialState.COMPLETE if np.isfinite(value) else TrialState.FAIL,
            value=float(value) if np.isfinite(value) else None,
            params={LR: float(rate)} | {name: name in subset for name in sample.components},
            distributions=distributions,
        )
        for subset, rate, value in zip(sample.subsets, sample.lrs, sample.values, strict=True)
    )
    return study


def attribute(
    components: Sequence[str], worth: Values, draws: Values, quantile: float, level: float = LEVEL
) -> Attribution:
    """The contributions of components, from the worth of all subsets.

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

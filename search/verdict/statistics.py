"""Statistics of a verdict: paired differences on common seeds, with intervals and tests that always agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from autoranger.search.arrays import Values

LEVEL = 0.05
"""Largest probability that the verdict names a winner if nothing is better than the default."""


@dataclass(frozen=True)
class Difference:
    """How much better one candidate is than another on common seeds.

    Args:
        effect: mean of the paired differences, in the units of the metric.
        low, high: confidence interval of the mean (Student's t).
        p: p-value of the paired t-test. It is at most the level exactly if the interval leaves out 0.
        seeds: number of pairs.
    """

    effect: float
    low: float
    high: float
    p: float
    seeds: int


def paired_difference(
    a: Values,
    b: Values,
    level: float = LEVEL,
    *,
    comparisons: int = 1,
    alternative: Literal["two-sided", "greater"] = "two-sided",
) -> Difference:
    """The paired difference a − b over seeds `[S]`.

    A run that diverged (NaN) counts as the worst value of both. With fewer than two seeds the interval is infinite.

    Args:
        a, b: metric on common seeds.
        level: of the test.
        comparisons: number of comparisons for which interval and p-value hold together (Bonferroni's correction).
        alternative: "two-sided" tests whether a and b differ, "greater" whether a is better. With the latter each end
            of the interval by itself is wrong with probability `level`, and the test uses the lower end alone.
    """
    difference = differences(a, b)
    effect, count = float(difference.mean()), len(difference)
    tails = 2 if alternative == "two-sided" else 1
    if count < 2:
        return Difference(effect, -np.inf, np.inf, 1.0, count)
    error = float(difference.std(ddof=1)) / count**0.5
    if error == 0.0:  # all differences are the same: no noise to test against
        certain = effect != 0 if tails == 2 else effect > 0
        return Difference(effect, effect, effect, 0.0 if certain else 1.0, count)
    half = -float(stdtrit(count - 1, level / tails / comparisons)) * error
    away = abs(effect) if tails == 2 else effect
    p = min(1.0, comparisons * tails * float(stdtr(count - 1, -away / error)))
    return Difference(effect, effect - half, effect + half, p, count)


def differences(a: Values, b: Values) -> Values:
    """a − b over seeds `[S]`; a training that has diverged (NaN) counts as the worst of both."""
    both = np.stack([a, b])
    worst = np.nanmin(both) if np.isfinite(both).any() else 0.0
    found: Values = np.nan_to_num(a, nan=worst) - np.nan_to_num(b, nan=worst)
    return found


def against(finalists: Values, other: Values, comparisons: int, level: float = LEVEL) -> list[Difference]:
    """How much better each finalist `[F, S]` is than a candidate `[S]`, which may be one of them.

    The lower ends of the intervals hold for all comparisons together, and so do the upper ones.
    """
    return [paired_difference(one, other, level, comparisons=comparisons, alternative="greater") for one in finalists]


def against_best(
    finalists: Values, baselines: Sequence[int], comparisons: int, level: float = LEVEL
) -> list[tuple[Difference, int]]:
    """How much better each finalist `[F, S]` is than the best of the baselines, and which one that seems to be.

    A finalist has to beat every baseline: its interval is above 0 exactly if each of those would be, so that nobody has
    to know which baseline is truly the best (an intersection-union test; Berger 1982). A finalist that is no better
    than some baseline is named with a probability of at most `level` / `comparisons`, also together with the claim that
    it is better than one of them. The upper end is corrected for the number of baselines, too.

    Args:
        finalists: metric.
        baselines: their indices; a finalist is not compared with itself.
        comparisons, level: as in `paired_difference`.
    """
    found = []
    for i, one in enumerate(finalists):
        others = [b for b in baselines if b != i] or [i]
        pairs = [against(one[None], finalists[b], comparisons, level)[0] for b in others]
        wide = [against(one[None], finalists[b], comparisons * len(others), level)[0] for b in others]
        nearest = min(range(len(others)), key=lambda k: pairs[k].effect)
        best = replace(
            pairs[nearest],
            low=min(pair.low for pair in pairs),
            high=min(pair.high for pair in wide),
            p=max(pair.p for pair in pairs),
        )
        found.append((best, others[nearest]))
    return found


def winner(differences: Sequence[Difference]) -> int | None:
    """Index of the finalist with the best mean among those whose interval is above 0; None if there is none."""
    better = [i for i, difference in enumerate(differences) if difference.low > 0]
    return max(better, key=lambda i: differences[i].effect, default=None)

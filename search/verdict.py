"""The statistics of a verdict: paired differences on fresh seeds, intervals, and a correction for many finalists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]

LEVEL = 0.05
"""Chance that the verdict names a winner where nothing is better than the default, at most."""


@dataclass(frozen=True)
class Difference:
    """How much better one candidate is than another on common seeds.

    Args:
        effect: mean of the paired differences, in the units of the metric.
        low, high: confidence interval of the mean (Student's t).
        p: one-sided p-value of "not better" (paired t-test).
        seeds: pairs.
    """

    effect: float
    low: float
    high: float
    p: float
    seeds: int


def compare(a: Values, b: Values, level: float = LEVEL) -> Difference:
    """The paired difference a − b over seeds `[S]`, with an interval of confidence 1 − `level`.

    A run that diverged (NaN) counts as the worst value seen in either. Fewer than two seeds say nothing.
    """
    both = np.stack([a, b])
    worst = np.nanmin(both) if np.isfinite(both).any() else 0.0
    difference = np.nan_to_num(a, nan=worst) - np.nan_to_num(b, nan=worst)
    effect, count = float(difference.mean()), len(difference)
    if count < 2:
        return Difference(effect, -np.inf, np.inf, 1.0, count)
    error = float(difference.std(ddof=1)) / count**0.5
    if error == 0.0:  # all differences are the same: no noise to test against
        return Difference(effect, effect, effect, 0.0 if effect > 0 else 1.0, count)
    half = float(stats.t.ppf(1 - level / 2, count - 1)) * error
    p = float(stats.t.sf(effect / error, count - 1))
    return Difference(effect, effect - half, effect + half, p, count)


def holm(p: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which hypotheses are rejected with a family-wise error of at most `level` (Holm 1979)."""
    order = np.argsort(np.asarray(p), kind="stable")
    rejected = [False] * len(p)
    for rank, index in enumerate(order):
        if p[index] > level / (len(p) - rank):
            break
        rejected[index] = True
    return rejected


def winner(finalists: Values, default: Values, level: float = LEVEL) -> int | None:
    """Index of the finalist that beats the default, the best mean among those that do significantly; or None.

    Args:
        finalists: metric `[F, S]`.
        default: metric `[S]` on the same seeds.
    """
    differences = [compare(finalist, default, level) for finalist in finalists]
    better = [i for i, rejected in enumerate(holm([d.p for d in differences], level)) if rejected]
    return max(better, key=lambda i: differences[i].effect, default=None)

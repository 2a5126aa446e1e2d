"""A forecast that was tried: does what is ahead at the proxy's length still win in longer trainings?

A search sees differences at a quarter, a half and the whole length of the proxy, paired on seeds. In longer trainings
they shrink, follow their trend for a part of the way, and are less and less certain:

    D(r) = keep^r · D + share · r · G + ε,     ε ~ t(freedom) · √(e² + (spread · r · S)²)

D is the difference at the proxy's length, G its growth with each doubling of the length, r the number of doublings, e
the standard error of what comes before ε, and S the typical difference of the candidates that are compared. `Model` has
the four numbers, which `fit.py` fits to trainings of three and ten times the length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import stdtr, stdtrit

from autoranger.search.arrays import Values


@dataclass(frozen=True)
class Trend:
    """How the difference of two candidates grows with the length of the training.

    Args:
        effect: at the proxy's length.
        error: standard error of `effect`.
        growth: with each doubling of the length.
        uncertain: standard error of `growth`.
        related: covariance of the errors of `effect` and `growth`.
        size: typical difference, at the proxy's length, of the candidates that are compared.
    """

    effect: float
    error: float
    growth: float
    uncertain: float
    related: float
    size: float


def trend(lengths: Sequence[int], found: Sequence[Values], size: float) -> Trend:
    """The trend of differences.

    Args:
        lengths: of the trainings, increasing; the last one is the proxy's.
        found: the differences on the same seeds `[S]`, by length.
        size: see `Trend`.
    """
    x = np.log2(np.asarray(lengths, dtype=float))
    slopes = (x - x.mean()) @ np.stack(found) / ((x - x.mean()) ** 2).sum()  # by seed
    ends = np.asarray(found[-1])
    error = np.cov(np.stack([ends, slopes])) / len(ends)
    return Trend(
        effect=float(ends.mean()),
        error=math.sqrt(error[0, 0]),
        growth=float(slopes.mean()),
        uncertain=math.sqrt(error[1, 1]),
        related=float(error[0, 1]),
        size=size,
    )


def typical(values: Values) -> float:
    """The root mean square of the differences between candidates `[F, S]`, each the mean of its seeds."""
    means = np.nan_to_num(values, nan=np.nanmin(values)).mean(axis=1)
    return float(np.sqrt(np.mean([(a - b) ** 2 for a, b in combinations(means, 2)])))


@dataclass(frozen=True)
class Model:
    """The numbers of the forecast; see above."""

    keep: float
    share: float
    spread: float
    freedom: float

    def at(self, found: Trend, doublings: float) -> tuple[float, float]:
        """Mean and scale of the difference so many doublings of the length beyond the proxy."""
        kept, way = self.keep**doublings, self.share * doublings
        noise = (kept * found.error) ** 2 + 2 * kept * way * found.related + (way * found.uncertain) ** 2
        scale = math.sqrt(max(noise, 0.0) + (self.spread * doublings * found.size) ** 2)
        return kept * found.effect + way * found.growth, max(scale, 1e-12)

    def chance(self, found: Trend, doublings: float, error: float = 0.0) -> float:
        """The chance that the difference is above 0 then, as measured with a standard error."""
        mean, scale = self.at(found, doublings)
        return float(stdtr(self.freedom, mean / math.hypot(scale, error)))

    def interval(self, found: Trend, doublings: float, level: float, error: float = 0.0) -> tuple[float, float]:
        """An interval that holds the difference with probability `level`, as measured with a standard error."""
        mean, scale = self.at(found, doublings)
        half = float(stdtrit(self.freedom, (1 + level) / 2)) * math.hypot(scale, error)
        return mean - half, mean + half

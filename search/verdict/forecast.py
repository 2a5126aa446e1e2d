"""A forecast: does what is ahead at the proxy's length still win in longer trainings?

A search sees differences at a quarter, a half and the whole length of the proxy, paired on seeds. The forecast goes on
along their trend, in logarithms of the length, but only for part of the way, and the further the less certain:

    D(r) = D + share · G · r + ε,     ε ~ t(freedom) · √(error of D + share · G · r)² + (spread · r)² · (D² + G²)

D is the difference at the proxy's length, G its growth with each doubling of the length, and r the number of doublings.
`Model` has the three numbers, which were fitted to trainings of ten times the length (studies/22_forecast).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from autoranger.search.arrays import Values
from autoranger.search.verdict.outcome import Forecast
from autoranger.search.verdict.statistics import differences

SURE = 0.9
"""Chance from which a forecast is trusted."""


@dataclass(frozen=True)
class Trend:
    """How the difference of two candidates grows with the length of the training.

    Args:
        effect: at the proxy's length.
        error: standard error of `effect`.
        growth: with each doubling of the length.
        uncertain: standard error of `growth`.
        related: covariance of the errors of `effect` and `growth`.
    """

    effect: float
    error: float
    growth: float
    uncertain: float
    related: float


def trend(lengths: Sequence[int], found: Sequence[Values]) -> Trend:
    """The trend of differences.

    Args:
        lengths: of the trainings, increasing; the last one is the proxy's.
        found: the differences on the same seeds `[S]`, by length.
    """
    x = np.log2(np.asarray(lengths, dtype=float))
    slopes = (x - x.mean()) @ np.stack(found) / ((x - x.mean()) ** 2).sum()  # by seed
    ends = np.asarray(found[-1])
    error = np.cov(np.stack([ends, slopes])) / len(ends)
    return Trend(
        float(ends.mean()), math.sqrt(error[0, 0]), float(slopes.mean()), math.sqrt(error[1, 1]), float(error[0, 1])
    )


@dataclass(frozen=True)
class Model:
    """The numbers of the forecast; see above."""

    share: float
    spread: float
    freedom: float

    def at(self, found: Trend, doublings: float) -> tuple[float, float]:
        """Mean and scale of the difference so many doublings of the length beyond the proxy."""
        way = self.share * doublings
        noise = found.error**2 + 2 * way * found.related + (way * found.uncertain) ** 2
        scale = math.sqrt(max(noise, 0.0) + (self.spread * doublings) ** 2 * (found.effect**2 + found.growth**2))
        return found.effect + way * found.growth, max(scale, 1e-12)

    def chance(self, found: Trend, doublings: float, error: float = 0.0) -> float:
        """The chance that the difference is above 0 then, as measured with a standard error."""
        mean, scale = self.at(found, doublings)
        return float(stdtr(self.freedom, mean / math.hypot(scale, error)))

    def interval(self, found: Trend, doublings: float, level: float, error: float = 0.0) -> tuple[float, float]:
        """An interval that holds the difference with probability `level`, as measured with a standard error."""
        mean, scale = self.at(found, doublings)
        half = float(stdtrit(self.freedom, (1 + level) / 2)) * math.hypot(scale, error)
        return mean - half, mean + half

    def trusted(self, found: Trend, most: float) -> float:
        """The doublings, `most` at most, up to which the chance is `SURE` or more; −1 if it is less at once."""
        steps = np.linspace(0.0, most, 65)
        unsure = [k for k, r in enumerate(steps) if not self.chance(found, r) >= SURE]
        return most if not unsure else float(steps[unsure[0] - 1]) if unsure[0] else -1.0


MODEL = Model(share=0.3, spread=0.3, freedom=4.0)
"""The numbers that were fitted (studies/22_forecast)."""

LEVEL = 0.9
"""Probability of a forecast's interval."""

TIMES = 10
"""Length of the trainings that a forecast is for, in lengths of the proxy."""


def forecast(steps: int, values: Mapping[int, Values], baselines: Mapping[str, int], model: Model = MODEL) -> Forecast:
    """The forecast for a config and baselines.

    Args:
        steps: the proxy's length.
        values: metric `[F, S]`, NaN where a training has diverged, by length; the last one is the proxy's. The first
            row is the config's.
        baselines: the rows of baselines, by role.
        model: what to forecast with.
    """
    doublings, lengths = math.log2(TIMES), list(values)
    trends = {
        role: trend(lengths, [differences(found[0], found[row]) for found in values.values()])
        for role, row in baselines.items()
    }
    rival = min(trends, key=lambda role: model.chance(trends[role], doublings))
    low, high = model.interval(trends[rival], doublings, LEVEL)
    trusted = min(model.trusted(found, doublings) for found in trends.values())
    return Forecast(
        steps=TIMES * steps,
        chance=round(model.chance(trends[rival], doublings), 3),
        rival=rival,
        low=low,
        high=high,
        trusted=round(steps * 2**trusted) if trusted >= 0 else 0,
        seeds=values[lengths[-1]].shape[1],
    )

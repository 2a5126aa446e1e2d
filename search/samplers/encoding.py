"""Encodes any Optuna search space as numbers: switches, whose choices have no order, and scales from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Points = NDArray[np.float64]
"""Points of a space `[n, P]`: the index of a switch's choice, or the position on a scale."""

MOST_LEVELS = 64
"""Most values of a scale that are listed; with more it counts as continuous."""

WIDE = 10.0
"""Ratio of the largest to the smallest positive choice from which on a scale is logarithmic."""


class Axis:
    """One parameter.

    A categorical parameter of three or more numbers that increase or decrease is a scale, too, logarithmic if it spans
    a factor of ten: a grid of learning rates has an order.

    Attributes:
        choices: number of a switch's choices; 0 for a scale.
        levels: positions of a scale with few values, or indices of a switch's choices; None for a continuous scale.
    """

    def __init__(self, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        self.log, self.choices, values = False, 0, list[float]()
        if isinstance(distribution, CategoricalDistribution):
            if ordered(distribution.choices):
                values = [float(value) for value in distribution.choices]  # type: ignore[arg-type]
                self.low, self.high = min(values), max(values)
                self.log = self.low > 0 and self.high / self.low >= WIDE
            else:
                self.choices = len(distribution.choices)
        elif isinstance(distribution, FloatDistribution | IntDistribution):
            self.low, self.high, self.log = float(distribution.low), float(distribution.high), distribution.log
            if distribution.step and (self.high - self.low) / distribution.step < MOST_LEVELS:
                steps = round((self.high - self.low) / distribution.step)
                values = [self.low + distribution.step * i for i in range(steps + 1)]
        else:
            raise ValueError(f"{distribution} is not a distribution that this sampler knows.")
        self.levels = np.arange(self.choices, dtype=float) if self.choices else None
        if values:
            self.levels = np.array([self.position(value) for value in values])

    def position(self, value: float) -> float:
        """The place of a number on the scale, 0 at the low end and 1 at the high one."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (value - low) / (high - low) if high > low else 0.5

    def encode(self, value: Any) -> float:
        """A parameter's value as a number."""
        return float(self.distribution.to_internal_repr(value)) if self.choices else self.position(float(value))

    def decode(self, x: float) -> Any:
        """The value of the distribution nearest to a number."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            assert self.levels is not None
            return distribution.choices[int(np.abs(self.levels - x).argmin())]
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        value = low + min(max(x, 0.0), 1.0) * (high - low)
        value = math.exp(value) if self.log else value
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        if distribution.step:
            value = self.low + distribution.step * round((value - self.low) / distribution.step)
        value = min(max(value, self.low), self.high)
        return round(value) if isinstance(distribution, IntDistribution) else float(value)

    def snap(self, x: Points) -> Points:
        """The numbers nearest to `x` that encode a value."""
        if self.levels is None:
            return np.clip(x, 0.0, 1.0)
        found: Points = self.levels[np.abs(self.levels - x[:, None]).argmin(axis=1)]
        return found


class Encoding:
    """A search space; `axes` by name, in the order of the columns of its points."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.axes = {name: Axis(distribution) for name, distribution in sorted(space.items())}
        self.choices = np.array([axis.choices for axis in self.axes.values()])

    def encode(self, params: Mapping[str, Any]) -> Points:
        """Parameters as a point `[P]`."""
        return np.array([axis.encode(params[name]) for name, axis in self.axes.items()])

    def decode(self, row: Points) -> dict[str, Any]:
        """The parameters nearest to a point `[P]`."""
        return {name: axis.decode(float(x)) for (name, axis), x in zip(self.axes.items(), row, strict=True)}

    @property
    def size(self) -> float:
        """Points in the space; infinite where a scale is continuous."""
        return math.prod(math.inf if axis.levels is None else len(axis.levels) for axis in self.axes.values())

    def grid(self, levels: Sequence[Points | None] | None = None) -> Points:
        """All points of the space, or all combinations with other levels for some axes."""
        own = [axis.levels for axis in self.axes.values()]
        used = own if levels is None else [o if x is None else x for o, x in zip(own, levels, strict=True)]
        return np.stack(np.meshgrid(*used, indexing="ij"), axis=-1).reshape(-1, len(used))

    def random(self, count: int, rng: np.random.Generator) -> Points:
        """Random points `[count, P]`."""
        columns = [
            rng.random(count) if axis.levels is None else rng.choice(axis.levels, count) for axis in self.axes.values()
        ]
        return np.stack(columns, axis=1)

    def near(self, row: Points, rng: np.random.Generator, spread: float = 0.1) -> Points:
        """Points that differ from one point in a single parameter: other choices, and steps up and down a scale."""
        values, columns = [], []
        for p, axis in enumerate(self.axes.values()):
            if axis.levels is None:
                found = axis.snap(row[p] + spread * rng.standard_normal(4))
            elif axis.choices:
                found = axis.levels[axis.levels != row[p]]
            else:
                found = axis.levels[np.argsort(np.abs(axis.levels - row[p]), kind="stable")[1:5]]
            values.append(found)
            columns += [p] * len(found)
        changed = np.repeat(row[None], len(columns), axis=0)
        changed[np.arange(len(columns)), columns] = np.concatenate(values)
        return changed

    def pool(self, most: int, rng: np.random.Generator, around: Points) -> Points:
        """Candidates: the whole space where it has at most `most` points, otherwise random ones and neighbours.

        Args:
            most: approximate number of points.
            rng: for the random ones.
            around: points `[n, P]` whose neighbours, and theirs, are included.
        """
        if self.size <= most:
            return self.grid()
        continuous = [axis.levels is None for axis in self.axes.values()]
        discrete = math.prod(len(axis.levels) for axis in self.axes.values() if axis.levels is not None)
        count = int(min(most / discrete, MOST_LEVELS)) if sum(continuous) == 1 else 0
        if count >= 5:
            # One continuous scale, such as a learning rate: a grid over it whose phase differs from call to call.
            fine = (np.arange(count) + rng.random()) / count
            base = self.grid([fine if c else None for c in continuous])
        else:
            base = self.random(most, rng)
        steps = [block for row in around for block in (self.near(row, rng), self.near(row, rng, 0.02))]
        return np.concatenate([base, around, *steps])

    def levels(self, bins: int) -> list[Points]:
        """The levels of every axis; of a continuous scale the middles of some bins."""
        middles = (np.arange(bins) + 0.5) / bins
        return [middles if axis.levels is None else axis.levels for axis in self.axes.values()]

    def pool_of_levels(self, bins: int, most: int, rng: np.random.Generator) -> Points:
        """All combinations of `levels`, or some of them at random."""
        levels = self.levels(bins)
        if math.prod(map(len, levels)) <= most:
            return self.grid(list(levels))
        return np.stack([rng.choice(values, most) for values in levels], axis=1)

    def indicators(self, rows: Points, bins: int) -> Points:
        """Points `[n, P]` as 0-1 vectors with an entry for each of `levels`: 1 for the nearest, 0 for the others."""
        columns = []
        for p, values in enumerate(self.levels(bins)):
            nearest = np.abs(rows[:, p, None] - values).argmin(axis=1)
            columns.append(nearest[:, None] == np.arange(len(values)))
        return np.concatenate(columns, axis=1).astype(float)

    def assemble(self, merits: Points, bins: int) -> Points:
        """The point `[P]` with each axis at the value of `levels` that has the highest merit."""
        levels = self.levels(bins)
        parts = np.split(merits, np.cumsum([len(values) for values in levels])[:-1])
        return np.array([values[part.argmax()] for values, part in zip(levels, parts, strict=True)])

    def spread(self, row: Points, bins: int, rng: np.random.Generator) -> Points:
        """A point with each continuous scale moved at random within its bin."""
        continuous = np.array([axis.levels is None for axis in self.axes.values()])
        return np.where(continuous, row + (rng.random(len(row)) - 0.5) / bins, row)


def ordered(choices: Sequence[object]) -> bool:
    """Whether choices are three or more numbers that increase or decrease."""
    numbers = [value for value in choices if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < max(3, len(choices)) or not all(map(math.isfinite, numbers)):
        return False
    return all(a < b for a, b in pairwise(numbers)) or all(a > b for a, b in pairwise(numbers))

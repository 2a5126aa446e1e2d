"""A Gaussian process over switches and scales, with noise.

    cov(f(x), f(x')) = a₀·M(r) + a₁·M(r/c)·exp(−Σ w_p·[x_p ≠ x'_p]) + a₂·[x = x'] + b,     y = f(x) + noise

r is the distance over the scales, each in units of its own length, M the Matérn function of order 5/2, and the sum runs
over the switches. The first term is what the scales do whatever the switches are (a learning rate too high for any
optimizer). The second, an exponential kernel on the Hamming distance, is a linear model with all interactions of the
switches, those of higher order with less weight (Wan et al. 2021, arXiv 2102.07188, use the same one), and M(r/c) lets
the best learning rate depend on the subset. The third belongs to one point alone: proxy runs are not quite smooth. b is
the variance of an unknown mean. All parameters are positive; their logarithms have normal priors, and are set to the
maximum of the posterior density (Rasmussen and Williams 2006, chapter 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

MEAN = 4.0
"""b, in units of the variance of the observations."""

JITTER = 1e-8
ITERATIONS = 25

# Medians and standard deviations of the logarithms: the amplitudes a₀, a₁, a₂, the lengths of the scales from 0 to 1,
# c, the weights w and the noise, for observations of variance 1.
PRIORS = {
    "a": ((1.0, 1.0), (0.7, 1.0), (0.03, 0.7)),
    "length": (0.35, 0.5),
    "ratio": (1.4, 0.5),
    "weight": (0.25, 0.7),
    "noise": (0.3, 0.8),
}


@dataclass(frozen=True)
class Data:
    """Observations, summed up for each point.

    Args:
        rows: n different points `[n, P]`.
        means: mean of the observations of each point.
        counts: their number.
        scatter: sum of squares of all observations about their point's mean.
    """

    rows: Array
    means: Array
    counts: Array
    scatter: float

    @classmethod
    def of(cls, rows: Array, values: Array) -> Data:
        """Single observations `[N]` at points `[N, P]`."""
        points, index = distinct(rows)
        counts = np.bincount(index).astype(float)
        means = np.bincount(index, values) / counts
        return cls(points, means, counts, float(((values - means[index]) ** 2).sum()))

    def add(self, rows: Array, means: Array) -> Data:
        """The data with one more observation at each of some points."""
        counts = np.concatenate([self.counts, np.ones(len(rows))])
        return Data(np.concatenate([self.rows, rows]), np.concatenate([self.means, means]), counts, self.scatter)


class Process:
    """The Gaussian process.

    Args:
        choices: of each axis, 0 for a scale (see `Encoding`).
    """

    def __init__(self, choices: NDArray[np.int64]) -> None:
        self.switches, self.scales = np.flatnonzero(choices), np.flatnonzero(choices == 0)
        self.choices = choices[self.switches]
        self._column = np.repeat(self.switches, self.choices)
        self._choice = np.concatenate([np.arange(n) for n in (0, *self.choices)])
        d, s = len(self.scales), len(self.switches)
        priors = [*PRIORS["a"], *[PRIORS["length"]] * d, PRIORS["ratio"], *[PRIORS["weight"]] * s, PRIORS["noise"]]
        medians, self.spread = np.array(priors).T
        self.center = np.log(medians)
        self.theta = self.center.copy()
        self.cuts = np.cumsum([3, d, 1, s])

    def parts(self, theta: Array) -> list[Array]:
        """The parameters with logarithms `theta`: amplitudes, lengths, c, weights and noise."""
        return np.split(np.exp(theta), self.cuts)

    def fit(self, data: Data) -> None:
        """Sets the parameters to a maximum of their posterior density, starting from their present values."""
        bounds = list(zip(self.center - 4 * self.spread, self.center + 4 * self.spread, strict=True))
        objective = self._objective(data)
        options = {"maxiter": ITERATIONS}
        self.theta = minimize(objective, self.theta, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x

    def posterior(self, data: Data, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of f at points `[M, P]`."""
        mean, weights = self._solve(data, rows)
        a = self.parts(self.theta)[0]
        return mean, np.sqrt(np.maximum(a.sum() + MEAN - (weights**2).sum(axis=0), 1e-12))

    def sample(self, data: Data, rows: Array, count: int, rng: np.random.Generator) -> Array:
        """Draws of f from the posterior at different points `[M, P]`: `[count, M]`."""
        mean, weights = self._solve(data, rows)
        covariance = self.covariance(rows, rows) - weights.T @ weights
        covariance[np.diag_indices(len(rows))] += 1e-6 * self.covariance(rows[:1], rows[:1])[0, 0]
        root = cholesky(covariance, lower=True, check_finite=False)
        drawn: Array = mean + rng.standard_normal((count, len(rows))) @ root.T
        return drawn

    @property
    def noise(self) -> float:
        """Variance of a single observation."""
        return float(self.parts(self.theta)[-1][0])

    def covariance(self, one: Array, other: Array) -> Array:
        """Prior covariance `[M, N]` of f at points `[M, P]` and `[N, P]`."""
        a, lengths, ratio, weights, _ = self.parts(self.theta)
        mismatch = self._mismatch(one, other, weights)
        # Many points have the same learning rate.
        (some, i), (few, j) = (distinct(rows[:, self.scales]) for rows in (one, other))
        squares = self._squares(some, few, lengths)
        shared, own, equal = (
            x[i][:, j] for x in (a[0] * matern(squares), a[1] * matern(squares / ratio**2), squares == 0)
        )
        same = equal & (mismatch < 0.5 * weights.min(initial=1.0))
        total: Array = shared + own * np.exp(-mismatch) + a[2] * same + MEAN
        return total

    def _solve(self, data: Data, rows: Array) -> tuple[Array, Array]:
        covariance = self.covariance(data.rows, data.rows)
        covariance[np.diag_indices(len(data.rows))] += self.noise / data.counts + JITTER
        root = cholesky(covariance, lower=True, check_finite=False)
        weights = solve_triangular(root, self.covariance(data.rows, rows), lower=True, check_finite=False)
        return weights.T @ solve_triangular(root, data.means, lower=True, check_finite=False), weights

    def _squares(self, one: Array, other: Array, lengths: Array) -> Array:
        """Squared distances over the scales, of points that have nothing else."""
        apart = (one[:, None] - other[None]) / lengths
        squares: Array = (apart * apart).sum(axis=-1)
        return squares

    def _mismatch(self, one: Array, other: Array, weights: Array) -> Array:
        """Weighted number of switches that differ."""
        root = np.sqrt(np.repeat(weights, self.choices))
        agreement = (self._one_hot(one) * root) @ (self._one_hot(other) * root).T
        mismatch: Array = np.maximum(weights.sum() - agreement, 0.0)
        return mismatch

    def _one_hot(self, rows: Array) -> Array:
        """The switches as a column for each choice."""
        hot: Array = (rows[:, self._column] == self._choice).astype(float)
        return hot

    def _objective(self, data: Data):  # type: ignore[no-untyped-def]
        """Minus the log posterior density of the parameters and its gradient, as a function of their logarithms."""
        n, rows, counts = len(data.rows), data.rows, data.counts
        hot = self._one_hot(rows)
        first = np.cumsum([0, *self.choices[:-1]]) if len(self.choices) else np.zeros(0, dtype=int)
        extra = float(counts.sum()) - n
        unit = [(rows[:, p, None] - rows[None, :, p]) ** 2 for p in self.scales]

        def objective(theta: Array) -> tuple[float, Array]:
            a, lengths, ratio, weights, (noise,) = self.parts(theta)
            squares = sum((u / v**2 for u, v in zip(unit, lengths, strict=True)), np.zeros((n, n)))
            shared = a[0] * matern(squares)
            decay = a[1] * np.exp(-self._mismatch(rows, rows, weights))
            own = decay * matern(squares / ratio**2)
            covariance = shared + own + MEAN
            covariance[np.diag_indices(n)] += a[2] + noise / counts + JITTER
            try:
                factor = cho_factor(covariance, lower=True, check_finite=False)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(theta)
            alpha = cho_solve(factor, data.means)
            value = 0.5 * data.means @ alpha + np.log(np.diag(factor[0])).sum()
            # Means and counts do not say all about the noise: the scatter within points has a likelihood of its own.
            value += 0.5 * (extra * np.log(noise) + data.scatter / noise)
            slope = np.outer(alpha, alpha) - cho_solve(factor, np.eye(n))  # dL/dK, times two
            by_own = slope * own
            # dM/d(log length_p) is the same function of the distance for every scale, times its part of the square.
            by_shared_square = slope * a[0] * matern_slope(squares)
            by_own_square = slope * decay * matern_slope(squares / ratio**2) / ratio**2
            by_square = by_shared_square + by_own_square
            gradient = [(slope * shared).sum(), by_own.sum(), a[2] * np.trace(slope)]
            gradient += [(by_square * u).sum() / v**2 for u, v in zip(unit, lengths, strict=True)]
            gradient += [(by_own_square * squares).sum()]
            if len(weights):
                agreement = np.add.reduceat((hot * (by_own @ hot)).sum(axis=0), first)
                gradient += list(-weights * (by_own.sum() - agreement))
            gradient += [(np.diag(slope) * noise / counts).sum() - extra + data.scatter / noise]
            away = (theta - self.center) / self.spread
            return float(value + 0.5 * away @ away), -0.5 * np.array(gradient) + away / self.spread

        return objective


def distinct(rows: Array) -> tuple[Array, NDArray[np.int64]]:
    """Distinct rows `[m, P]`, and for each row the number of its own."""
    found, index = np.unique(rows, axis=0, return_inverse=True)
    return found, index.reshape(-1)


def matern(squares: Array) -> Array:
    """The Matérn function of order 5/2 of squared distances."""
    x = np.sqrt(5 * squares)
    value: Array = (1 + x + x**2 / 3) * np.exp(-x)
    return value


def matern_slope(squares: Array) -> Array:
    """Minus twice the derivative of `matern` by the squared distance."""
    x = np.sqrt(5 * squares)
    value: Array = 5 / 3 * (1 + x) * np.exp(-x)
    return value

"""Combinatorial Thompson sampling: a Bayesian linear model of switches, their pairs, and a parabola over each scale."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from autoranger.search.arrays import Values
from autoranger.search.samplers.base import History, ModelSampler, standardized
from autoranger.search.samplers.encoding import Encoding, Points

Array = NDArray[np.float64]

MOST_CANDIDATES = 4096

PENALTY = 0.1
"""Prior mean of the cost of turning a switch away from the reference, in standard deviations of the values."""

# Prior variances: of the intercept, a switch, a scale's slope and curvature, and of products of two of these.
INTERCEPT, SINGLE, PRODUCT = 4.0, 1.0, 0.25

SCALES = (0.03, 0.1, 0.3, 1.0)
NOISES = (0.03, 0.1, 0.2, 0.4, 0.8)
"""Common factors of all prior variances but the intercept's, and variances of the noise: the pair with the highest
marginal likelihood is used."""


class ThompsonSampler(ModelSampler):
    """Draws a linear model from its posterior and proposes the best point of that model.

    Its features are the switches, as deviations from the reference, the pairs of switches, each scale with its square,
    and the products of those with the switches (the best learning rate depends on the subset) and with each other.
    The prior is centred on the reference: turning a switch is expected to cost a little.
    """

    def propose(self, encoding: Encoding, history: History) -> Points:
        """The next point `[P]`."""
        model, features = self._fitted(encoding, history)
        weights = model.draw(1, self.rng)[0]
        pool = encoding.pool(MOST_CANDIDATES, self.rng, history.rows[np.argsort(-history.values)[:5]])
        taken = {tuple(row) for row in history.pending}
        merits = features(pool) @ weights
        best = next((i for i in np.argsort(-merits) if tuple(pool[i]) not in taken), int(merits.argmax()))
        chosen: Points = pool[best]
        return chosen

    def estimate(self, encoding: Encoding, history: History, rows: Points) -> Values:
        """The posterior mean of points `[n, P]`."""
        model, features = self._fitted(encoding, history)
        expected: Values = features(rows) @ model.mean
        return expected

    def _fitted(self, encoding: Encoding, history: History) -> tuple[Linear, Features]:
        features = Features(encoding, [self.believed(name, axis) for name, axis in encoding.axes.items()])
        inputs, values = features(history.rows), standardized(history.values)
        models = [Linear(inputs, values, features, scale, noise) for scale in SCALES for noise in NOISES]
        return max(models, key=lambda model: model.evidence), features


class Features:
    """Columns of the linear model for points of a space, with the mean and variance of their weights' prior.

    Args:
        encoding: of the space.
        reference: value of each axis, None if unknown.
    """

    def __init__(self, encoding: Encoding, reference: list[object]) -> None:
        self.singles: list[tuple[int, float | None]] = []  # axis, and the choice or None for a scale
        mean = []
        for p, (axis, value) in enumerate(zip(encoding.axes.values(), reference, strict=True)):
            if axis.choices:
                base = 0.0 if value is None else axis.encode(value)
                others = [float(c) for c in range(axis.choices) if c != base]
                self.singles += [(p, choice) for choice in others]
                mean += [0.0 if value is None else -PENALTY] * len(others)
            else:
                self.singles.append((p, None))
                mean.append(0.0)
        self.pairs = [(i, j) for i, j in combinations(range(len(self.singles)), 2) if self._axis(i) != self._axis(j)]
        self.scales = [i for i, (_, choice) in enumerate(self.singles) if choice is None]
        self.bent = [(i, j) for i in self.scales for j in range(len(self.singles)) if j not in self.scales]
        products = len(self.pairs) + len(self.bent)
        self.mean = np.array([0.0, *mean, *[0.0] * (len(self.scales) + products)])
        self.variance = np.array([INTERCEPT, *[SINGLE] * (len(mean) + len(self.scales)), *[PRODUCT] * products])

    def _axis(self, single: int) -> int:
        return self.singles[single][0]

    def __call__(self, rows: Points) -> Array:
        """The features `[n, F]` of points `[n, P]`."""
        x = np.stack([2 * rows[:, p] - 1 if c is None else rows[:, p] == c for p, c in self.singles], axis=1)
        x = x.astype(float)
        squares = x[:, self.scales] ** 2
        pairs = [x[:, i] * x[:, j] for i, j in self.pairs] + [x[:, i] ** 2 * x[:, j] for i, j in self.bent]
        return np.column_stack([np.ones(len(x)), x, squares, *pairs])


class Linear:
    """A Bayesian linear regression with normal prior and noise (Bishop 2006, section 3.3 and 3.5).

    Attributes:
        mean: of the weights' posterior `[F]`.
        evidence: logarithm of the marginal likelihood, up to a constant.
    """

    def __init__(self, inputs: Array, values: Array, features: Features, scale: float, noise: float) -> None:
        prior = features.variance * np.where(np.arange(len(features.variance)) == 0, 1.0, scale)
        precision = inputs.T @ inputs / noise + np.diag(1 / prior)
        self.factor = cho_factor(precision, lower=True)
        self.mean: Array = cho_solve(self.factor, inputs.T @ values / noise + features.mean / prior)
        misfit = ((values - inputs @ self.mean) ** 2).sum() / noise + ((self.mean - features.mean) ** 2 / prior).sum()
        determinants = 2 * np.log(np.diag(self.factor[0])).sum() + np.log(prior).sum() + len(values) * np.log(noise)
        self.evidence = float(-0.5 * (misfit + determinants))

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Weights `[count, F]` from the posterior."""
        noise = rng.standard_normal((len(self.mean), count))
        drawn: Array = self.mean + solve_triangular(self.factor[0], noise, lower=True, trans=1).T
        return drawn

"""ComBand: exponential weights over all combinations (Cesa-Bianchi and Lugosi 2012, Combinatorial bandits)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autoranger.search.arrays import Values
from autoranger.search.samplers.base import STARTUP, History, ModelSampler, standardized
from autoranger.search.samplers.encoding import Encoding, Points

HORIZON = 256
"""Number of trials for which the rates are set."""

MOST_ACTIONS = 4096
BINS = 8
"""Values of a continuous scale."""


class ComBandSampler(ModelSampler):
    """Plays combinations with probabilities that fall exponentially in their estimated cost.

    An action is a point, written as the 0-1 vector v of its parameters' values; its cost is assumed to be linear in v.
    After a cost c the vector of costs is estimated, without bias, by c·P⁺v with P = E[v vᵀ] under the probabilities
    that v was drawn with: (1 − γ)·q + γ·uniform, with q ∝ exp(−η · sum of the estimates · v).

    Costs are the trials' values, scaled to lie between 0 and 1. With B² the number of parameters, λ the smallest
    non-zero eigenvalue of P under the uniform distribution, d the length of v, N actions and n the horizon,
    η = γλ/B² keeps every step's exponent within 1, and γ² = B² ln N / (λ n (1 + λd/B²)) minimises the bound
    γn + ln N / η + ηnd on the regret under it; at most a half.

    Args:
        seed, startup, reference: as for every `ModelSampler`.
        horizon: n.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        startup: int = STARTUP,
        reference: Mapping[str, Any] | None = None,
        horizon: int = HORIZON,
    ) -> None:
        super().__init__(seed, startup=startup, reference=reference)
        self.horizon = horizon

    def propose(self, encoding: Encoding, history: History) -> Points:
        """The next point `[P]`."""
        points = encoding.pool_of_levels(BINS, MOST_ACTIONS, self.rng)
        probabilities = self.probabilities(encoding, history, points)
        taken = {tuple(row) for row in history.pending}
        free = np.array([tuple(row) not in taken for row in points])
        chances = np.where(free, probabilities, 0.0) if probabilities[free].sum() > 0 else probabilities
        return encoding.spread(points[self.rng.choice(len(points), p=chances / chances.sum())], BINS, self.rng)

    def estimate(self, encoding: Encoding, history: History, rows: Points) -> Values:
        """Minus the estimated cost of points `[n, P]`."""
        points = np.concatenate([rows, encoding.pool_of_levels(BINS, MOST_ACTIONS, self.rng)])
        return np.log(self.probabilities(encoding, history, points)[: len(rows)])

    def probabilities(self, encoding: Encoding, history: History, points: Points) -> Values:
        """The probability of each action `[N, P]` after a history, as if its trials had been played in their order."""
        actions, played = (encoding.indicators(rows, BINS) for rows in (points, history.rows))
        values = standardized(history.values)
        costs = (values.max() - values) / max(np.ptp(values), 1e-12)
        count, length = actions.shape
        eigenvalues = np.linalg.eigvalsh(actions.T @ actions / count)
        smallest, squared = eigenvalues[eigenvalues > 1e-9].min(), len(encoding.axes)
        gamma = (squared * np.log(count) / (smallest * self.horizon * (1 + smallest * length / squared))) ** 0.5
        gamma = min(0.5, gamma)
        exponents, mixed = np.zeros(count), np.full(count, 1 / count)
        for v, cost in zip(played, costs, strict=True):
            estimate = cost * np.linalg.pinv(actions.T @ (actions * mixed[:, None]), hermitian=True, rcond=1e-10) @ v
            exponents -= gamma * smallest / squared * (actions @ estimate)
            weights = np.exp(exponents - exponents.max())
            mixed = (1 - gamma) * weights / weights.sum() + gamma / count
        return mixed

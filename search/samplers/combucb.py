"""CombUCB1: the combination of the most promising values (Gai et al. 2012; Kveton et al. 2015, arXiv 1410.0949)."""

from __future__ import annotations

import numpy as np

from autoranger.search.arrays import Values
from autoranger.search.samplers.base import History, ModelSampler, standardized
from autoranger.search.samplers.encoding import Encoding, Points

BINS = 8
"""Values of a continuous scale."""


class CombUcbSampler(ModelSampler):
    """Gives each parameter the value with the highest upper confidence bound, mean + √(1.5 ln t / n).

    The algorithm is for semi-bandits, which see what every item contributes. A trial has one value, so that each item
    (a parameter's value) is credited with all of it: its mean is over all trials that had it. This suits effects that
    add up, and misleads if parameters interact. Running trials count as finished with the mean of their items, so that
    a batch does not repeat itself.
    """

    def propose(self, encoding: Encoding, history: History) -> Points:
        """The next point `[P]`."""
        means, counts = self._items(encoding, history)
        running = encoding.indicators(history.pending, BINS).sum(axis=0)
        total = counts + running
        rounds = len(history.values) + len(history.pending)
        bounds = means + np.sqrt(1.5 * np.log(max(2, rounds)) / np.maximum(total, 1e-9))
        taken = {tuple(row) for row in history.pending}
        points = [encoding.spread(encoding.assemble(bounds, BINS), BINS, self.rng)]
        if tuple(points[0]) in taken:
            points = list(encoding.near(points[0], self.rng))
        ranked = sorted(points, key=lambda row: -float(bounds @ encoding.indicators(row[None], BINS)[0]))
        return next((row for row in ranked if tuple(row) not in taken), ranked[0])

    def estimate(self, encoding: Encoding, history: History, rows: Points) -> Values:
        """The sum of the means of the values of points `[n, P]`."""
        summed: Values = encoding.indicators(rows, BINS) @ self._items(encoding, history)[0]
        return summed

    def _items(self, encoding: Encoding, history: History) -> tuple[Values, Values]:
        """Mean value, scaled to lie between 0 and 1, and number of trials of each value of each parameter."""
        values = standardized(history.values)
        merits = (values - values.min()) / max(np.ptp(values), 1e-12)
        items = encoding.indicators(history.rows, BINS)
        counts = items.sum(axis=0)
        return np.where(counts > 0, items.T @ merits / np.maximum(counts, 1), 0.5), counts

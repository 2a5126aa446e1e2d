"""The default sampler: Bayesian optimisation with a Gaussian process made for switches, learning rates and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr

from autoranger.search.arrays import Values
from autoranger.search.samplers.base import STARTUP, History, ModelSampler, standardized
from autoranger.search.samplers.encoding import Encoding, Points
from autoranger.search.samplers.process import Data, Process

MOST_CANDIDATES = 2048
"""Most points that are considered in every trial; in a larger space random ones and neighbours of the best."""

MOST_OBSERVED = 400
"""Most trials in the model; of more, the best and the latest half of that many."""

GROWTH = 1.2
"""Factor by which the observations grow between two fits of the model's parameters."""

CONTENDERS = 300
"""Number of points for a Thompson draw: those with the highest mean plus `OPTIMISM` standard deviations."""

OPTIMISM = 2.5

CAUTION = 1.0
"""Standard deviations below its mean at which a point is judged for a recommendation."""


class BayesSampler(ModelSampler):
    """Bayesian optimisation by two rules, each in half of the trials, with one model (see `process`).

    The first rule takes the largest augmented expected improvement (Huang et al. 2006): the expected improvement over
    the best posterior mean of any point evaluated, times 1 − √(σ² / (s² + σ²)) with the posterior standard deviation s
    and the variance σ² of the noise. It exploits, and repeats promising points. The other rule takes the best point of
    a function drawn from the posterior (Thompson 1933), which explores what the first would overlook.

    Args:
        seed, startup, reference: as for every `ModelSampler`.
    """

    def __init__(
        self, seed: int | None = None, *, startup: int = STARTUP, reference: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(seed, startup=startup, reference=reference)
        self._models: dict[str, tuple[Process, int]] = {}

    def propose(self, encoding: Encoding, history: History) -> Points:
        """The next point `[P]`."""
        data = observed(history)
        process = self._fitted(encoding, data)
        # Pending trials are expected to find what the model expects: their points lose their appeal.
        if len(history.pending):
            data = data.add(history.pending, process.posterior(data, history.pending)[0])
        known = process.posterior(data, data.rows)[0]
        leaders = data.rows[np.argsort(-known)[:5]]
        pool = encoding.pool(MOST_CANDIDATES, self.rng, leaders)
        free = np.ones(len(pool), dtype=bool)
        for row in history.pending:
            free &= (pool != row).any(axis=1)
        candidates = pool[free] if free.any() else pool
        means, deviations = process.posterior(data, candidates)
        if self.rng.random() < 0.5:
            gain = improvement(means, deviations, float(known.max()), process.noise)
        else:
            hopeful = np.argsort(-(means + OPTIMISM * deviations))[:CONTENDERS]
            candidates = np.unique(candidates[hopeful], axis=0)
            gain = process.sample(data, candidates, 1, self.rng)[0]
        chosen: Points = candidates[int(gain.argmax())]
        return chosen

    def estimate(self, encoding: Encoding, history: History, rows: Points) -> Values:
        """The posterior mean of points `[n, P]` minus `CAUTION` standard deviations: one lucky value is not enough."""
        data = observed(history)
        means, deviations = self._fitted(encoding, data).posterior(data, rows)
        cautious: Values = means - CAUTION * deviations
        return cautious

    def _fitted(self, encoding: Encoding, data: Data) -> Process:
        """The process of a space. Its parameters are fitted again when there are notably more observations."""
        key, count = repr([(name, axis.distribution) for name, axis in encoding.axes.items()]), int(data.counts.sum())
        process, fitted = self._models.get(key, (Process(encoding.choices), 0))
        if not fitted <= count < max(fitted + 4, fitted * GROWTH):
            process.fit(data)
            self._models[key] = process, count
        return process


def observed(history: History) -> Data:
    """The trials that the model learns from: all, or of very many the best and the latest."""
    values, rows = standardized(history.values), history.rows
    if len(values) > MOST_OBSERVED:
        half = MOST_OBSERVED // 2
        kept = np.union1d(np.argsort(-values, kind="stable")[:half], np.arange(len(values))[-half:])
        values, rows = values[kept], rows[kept]
    return Data.of(rows, values)


def improvement(means: Values, deviations: Values, best: float, noise: float) -> Values:
    """The augmented expected improvement of points over `best`."""
    u = (means - best) / deviations
    expected = deviations * (u * ndtr(u) + np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi))
    augmented: Values = expected * (1 - np.sqrt(noise / (noise + deviations**2)))
    return augmented

"""The default sampler: Bayesian optimisation with a Gaussian process made for switches, learning rates and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr

from autoranger.search.samplers.base import STARTUP, History, ModelSampler, Values, standardized
from autoranger.search.samplers.encoding import Encoding, Rows
from autoranger.search.samplers.process import Data, Process

MOST_CANDIDATES = 2048
"""Points of which all are looked at in every trial; of a larger space as many, at random and next to the best."""

MOST_OBSERVED = 400
"""Trials that the model holds; of more the best half and the latest half of that many."""

GROWTH = 1.2
"""By what factor the observations grow between two fits of the model's parameters."""


class BayesSampler(ModelSampler):
    """Proposes the point with the largest augmented expected improvement.

    The augmented expected improvement (Huang et al. 2006) is the expected improvement over the best posterior mean of
    any point evaluated, times 1 − √(σ² / (s² + σ²)) with the posterior standard deviation s and the noise variance σ².
    It may well propose a promising point again, where another look at it is worth more than a new point.

    Args:
        seed, startup, reference: as for every `ModelSampler`.
    """

    def __init__(
        self, seed: int | None = None, *, startup: int = STARTUP, reference: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(seed, startup=startup, reference=reference)
        self._models: dict[str, tuple[Process, int]] = {}

    def propose(self, encoding: Encoding, history: History) -> Rows:
        """The next point `[P]`."""
        data = observed(history)
        process = self._fitted(encoding, data)
        # Pending trials are expected to find what the model expects: their points lose their appeal.
        if len(history.pending):
            data = data.add(history.pending, process.posterior(data, history.pending)[0])
        means = process.posterior(data, data.rows)[0]
        leaders = data.rows[np.argsort(-means)[:5]]
        pool = encoding.pool(MOST_CANDIDATES, self.rng, leaders)
        pending = {tuple(row) for row in history.pending}
        keep = [tuple(row) not in pending for row in pool] if pending else slice(None)
        candidates = pool[keep] if not pending or any(keep) else pool  # type: ignore[arg-type]
        gain = improvement(*process.posterior(data, candidates), float(means.max()), process.noise)
        chosen: Rows = candidates[int(gain.argmax())]
        return chosen

    def estimate(self, encoding: Encoding, history: History, rows: Rows) -> Values:
        """The posterior mean of points `[n, P]`."""
        data = observed(history)
        return self._fitted(encoding, data).posterior(data, rows)[0]

    def _fitted(self, encoding: Encoding, data: Data) -> Process:
        """The process of a space, its parameters fitted anew where there are notably more observations."""
        key, count = repr([(name, axis.distribution) for name, axis in encoding.axes.items()]), int(data.counts.sum())
        process, fitted = self._models.get(key, (Process(encoding.choices), 0))
        if not fitted <= count < max(fitted + 4, fitted * GROWTH):
            process.fit(data)
            self._models[key] = process, count
        return process


def observed(history: History) -> Data:
    """What a model learns from: all that is known, or the best and the latest of very many trials."""
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

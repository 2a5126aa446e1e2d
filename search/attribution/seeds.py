"""How much the effects of components differ from seed to seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoranger.search.arrays import Values

SPARE = 10
"""Candidates that a round needs beyond the number of its components."""


def between_seeds(components: Sequence[str], rounds: Sequence[tuple[Sequence[frozenset[str]], Values]]) -> float | None:
    """The variance between seeds of a component's main effect, the mean over components; None if unknown.

    In a round with several seeds each seed has its own main effects, by least squares from the candidates' deviations
    from their means over seeds. The variance of these effects, minus the part that noise alone causes, is the estimate
    (that of a random-effects model). Bad candidates would dominate it and are left out: those further below the median
    than the best is above it.

    Args:
        components: C ids.
        rounds: for each round the candidates' subsets, and their metric `[N, S]` on S seeds, NaN if a run diverged.
    """
    found, weights = [], []
    for subsets, values in rounds:
        means = values.mean(axis=1)
        finite = np.isfinite(means)
        if not finite.any():
            continue
        top, middle = np.quantile(means[finite], (1.0, 0.5))
        good = np.flatnonzero(finite & (np.nan_to_num(means, nan=-np.inf) >= 2 * middle - top))
        switches = np.array([[float(name in subsets[i]) for name in components] for i in map(int, good)])
        varied = switches[:, switches.any(axis=0) & ~switches.all(axis=0)]
        design = np.column_stack([np.ones(len(good)), varied])
        count, seeds = len(good), values.shape[1]
        if not varied.size or count < design.shape[1] + SPARE or np.linalg.matrix_rank(design) < design.shape[1]:
            continue
        deviations = values[good] - means[good, None]
        effects = np.linalg.pinv(design) @ deviations
        rest = ((deviations - design @ effects) ** 2).sum() / (count - design.shape[1]) / (seeds - 1)
        noise = rest * np.diag(np.linalg.inv(design.T @ design))
        found.append(float(((effects**2).sum(axis=1) / (seeds - 1) - noise)[1:].mean()))
        weights.append((seeds - 1) * count)
    return max(0.0, float(np.average(found, weights=weights))) if found else None

"""A check before a search that training improves the metric. With one where lower is better, the worst would win."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.direction import sign_of
from autoranger.search.population import Population
from autoranger.search.race.objectives import LOSS, with_objective
from autoranger.search.verdict.statistics import paired_difference

SEEDS, LEVEL = 8, 0.01
"""Seeds on which training must be worse than none, and the level of that test: a noisy metric is hardly refused."""


def check_metric(
    population: Population,
    plain: Config,
    lrs: Sequence[float],
    steps: int,
    seeds: Callable[[int], list[int]],
    *,
    first: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Trains AdamW, and compares it with the same model trained at rate 0.

    If some learning rate makes the metric worse on the first seeds, the rate with the lowest loss is tried on fresh
    ones. The task is refused only if that rate makes the metric worse, too: one that is too high proves nothing.

    Args:
        population: of the task.
        plain: AdamW.
        lrs, steps: learning rates and length of the trainings.
        seeds: gives that many that have not been used.
        first: seeds to begin with.
        progress: called with the number of candidate-steps done since the last call.

    Raises:
        ConfigError: if AdamW makes the loss better and the metric worse.
    """
    arms, chosen = [replace(plain, lr=lr) for lr in (0.0, *lrs)], seeds(first)
    untrained, *trained = population.train(arms, chosen, steps, progress=progress)["valid"]
    worse = [bool((values < untrained).all()) for values in trained]
    if not any(worse):
        return
    with warnings.catch_warnings(action="ignore"):  # said before, if at all
        by_loss = Population(with_objective(population.task, LOSS)[0])
    by_loss.pulse = population.pulse
    before, *after = by_loss.train(arms, chosen, steps, progress=progress)["valid"]
    sane = max(range(len(lrs)), key=lambda i: after[i].mean() if np.isfinite(after[i]).all() else -np.inf)
    if not worse[sane] or not (after[sane] > before).all():
        return
    idle, busy = population.train([arms[0], arms[1 + sane]], seeds(SEEDS), steps, progress=progress)["valid"]
    sign = sign_of(population.task.direction)
    other = "minimize" if sign > 0 else "maximize"
    if paired_difference(idle, busy, LEVEL, alternative="greater").low > 0:
        raise ConfigError(
            f"task '{population.task.name}': AdamW with lr {lrs[sane]:g} makes the loss better and the metric worse, "
            f"{sign * busy.mean():.4g} instead of {sign * idle.mean():.4g} without training, the mean of {SEEDS} "
            f'seeds; should its direction be "{other}"? If it is right, make steps longer.'
        )

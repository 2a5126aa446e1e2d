"""Compares configs on a task: a sweep of the learning rate for each, then paired runs on new seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from optuna.storages import InMemoryStorage

from autoranger.components.core.component import registry
from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.clock import Clock
from autoranger.search.population import Population
from autoranger.search.progress import Progress
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.race.race import Race, best_lr, mean
from autoranger.search.space import Space, lr_grid
from autoranger.search.storage.record import Record
from autoranger.search.tasks.task import Task
from autoranger.search.verdict.statistics import Difference, paired_difference

SWEEP_SEEDS = 4
"""Seeds of each learning rate in a sweep."""

CURVE_POINTS = 10
"""Evenly spaced points of a learning curve."""


@dataclass(frozen=True)
class Side:
    """One of the configs that are compared.

    Args:
        name: the user's name for it.
        config: with the learning rate of the runs.
        valid, test: mean metric over the seeds.
        diverged: seeds on which the training diverged.
        curve: mean validation metric `[10]` at tenths of the training.
    """

    name: str
    config: Config
    valid: float
    test: float
    diverged: int
    curve: NDArray[np.float64]


@dataclass(frozen=True)
class HeadToHead:
    """Several configs on common seeds, best first.

    Args:
        sides: the configs.
        differences: for each pair of names the paired difference of the validation metric, with an interval and
            a two-sided p-value that hold for all pairs together.
        steps: length of the trainings.
    """

    sides: list[Side]
    differences: dict[tuple[str, str], Difference]
    steps: int


def compare_configs(
    task: Task,
    configs: Mapping[str, Config],
    *,
    seeds: int = 16,
    sweep: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadToHead:
    """Trains every config on the same seeds.

    Args:
        task: what to train.
        configs: by name, two or more.
        seeds: number of seeds of the comparison, none of which is used in the sweep.
        sweep: whether each config gets the best learning rate of a grid, which is extended while the best is on its
            edge; otherwise each keeps its own.
        seed: of all random numbers.
        progress: is told how the comparison goes.

    Raises:
        ConfigError: if there are fewer than two configs, or two that differ only in the swept learning rate.
    """
    if len(configs) < 2:
        raise ConfigError("a comparison needs two different configs; name two files or presets.")
    population, clock = Population(task), Clock(None, progress or Progress())
    first = seed * 1_000_000
    chosen = dict(configs)
    if sweep:
        chosen = sweep_rates(population, chosen, clock, list(range(first, first + SWEEP_SEEDS)))
    fresh = list(range(first + SWEEP_SEEDS, first + SWEEP_SEEDS + seeds))
    work = len(chosen) * seeds * task.steps
    clock.verdict(len(chosen), seeds, work=work)
    clock.training(work)
    scores = population.train(
        list(chosen.values()),
        fresh,
        task.steps,
        splits=("valid", "test"),
        curve=CURVE_POINTS,
        progress=clock.advance,
    )
    valid = dict(zip(chosen, scores["valid"], strict=True))
    sides = [
        Side(name, config, mean(valid[name]), mean(test), int(np.isnan(valid[name]).sum()), np.array([*map(mean, at)]))
        for (name, config), test, at in zip(
            chosen.items(), scores["test"], np.swapaxes(scores["curve"], 1, 2), strict=True
        )
    ]
    sides.sort(key=lambda side: -np.nan_to_num(side.valid, nan=-np.inf))
    pairs = list(combinations([side.name for side in sides], 2))
    differences = {(a, b): paired_difference(valid[a], valid[b], comparisons=len(pairs)) for a, b in pairs}
    return HeadToHead(sides, differences, task.steps)


def sweep_rates(
    population: Population, configs: Mapping[str, Config], clock: Clock, seeds: list[int]
) -> dict[str, Config]:
    """The configs with their best learning rates; raises ConfigError if two differ only in the rate."""
    arms = {name: replace(config, lr=1.0) for name, config in configs.items()}
    require_different(configs)
    task, grid = population.task, lr_grid(*population.task.lr_range)
    rung = Rung(steps=task.steps, seeds=len(seeds), keep=len(arms), lrs=len(grid))
    work = Plan(len(arms), (rung,), 0, task.steps).cost(len(arms), len(grid))
    clock.round(1, 1, candidates=len(arms) * len(grid), rung=rung, work=work)
    record = Record(InMemoryStorage(), "sweep", Space(tuple(registry)), {}, resume=False)
    scores = Race(population, record, {}, clock).round({arm: list(grid) for arm in arms.values()}, rung, seeds)
    return {name: replace(arm, lr=best_lr(scores[arm])) for name, arm in arms.items()}


def require_different(configs: Mapping[str, Config]) -> None:
    """Raises ConfigError if two configs differ only in the rate, of which each gets the best."""
    for (a, one), (b, other) in combinations(configs.items(), 2):
        if replace(one, lr=1.0) == replace(other, lr=1.0):
            raise ConfigError(
                f"{a} and {b} differ at most in the learning rate, of which each gets its best: there is nothing to "
                f"compare. With --no-sweep it would be {one.lr:g} against {other.lr:g}."
            )

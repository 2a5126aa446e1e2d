"""Where the best learning rate of a larger training lies: the scale laws, and how well they hold on the way there."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError, SearchError
from autoranger.components.core.proxy import proxy_of
from autoranger.search.clock import Clock
from autoranger.search.population import Population
from autoranger.search.population.data import splits
from autoranger.search.progress import Progress
from autoranger.search.tasks.task import Task
from autoranger.search.tasks.words import about
from autoranger.search.vectorization import forked, length, reseed

SHARES = (0.0, 0.2, 0.4)
"""Of the way to the target, in logarithms of everything, the trainings that are made."""

DECADE, AROUND, FURTHER = 0.25, 2, 10
"""Between the rates of each, in decades; how many there are on both sides of the one that the laws say; how many more
at most where the best one is on an edge."""

OFFSET, DRIFT, GRID = 0.5, 0.25, 0.08
"""Standard deviations in decades, before anything has been trained: of the file's own rate about the best one, of what
the laws miss on the whole way, and of a best rate that is read off a grid."""

NORMAL = 1.645
"""Standard deviations of a 90 % interval."""

T = TypeVar("T", bound=Task)


@dataclass(frozen=True)
class Stop:
    """The trainings at one scale.

    Attributes:
        share: of the way to the target.
        scale, batch_size, steps: of the trainings.
        rates: base rates, which the laws act on.
        values: mean metric at each; NaN where one has diverged.
        best: decades from the file's rate to the best one.
        error: its standard error.
    """

    share: float
    scale: float
    batch_size: int
    steps: int
    rates: list[float]
    values: list[float]
    best: float
    error: float


@dataclass(frozen=True)
class Transfer:
    """The prediction.

    Attributes:
        lr: the best base rate, for `Config.build` at the target; `low` and `high` are a 90 % interval.
        drift: decades by which the best rate leaves the laws on the way to the target, and its standard error.
        holds: whether that is no more than noise or a quarter of a decade.
        scale, batch_size, steps: the target.
        stops: what was trained.
        noted: whether the config said what its proxy was; else it is the task as it is.
    """

    lr: float
    low: float
    high: float
    drift: tuple[float, float]
    holds: bool
    scale: float
    batch_size: int
    steps: int
    stops: list[Stop]
    noted: bool


def transfer(
    task: Task,
    config: Config,
    *,
    scale: float = 1.0,
    steps: int | None = None,
    batch_size: int | None = None,
    seeds: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Transfer:
    """Trains a config at small scales, as its laws have it there, and predicts its best rate at a larger one.

    Args:
        task: at the scale at which the config was found.
        config: what to train.
        scale: of the target's width; see `Task.model`.
        steps, batch_size: of the target; of the task at full length where None.
        seeds: of each training.
        seed: of all random numbers.
        progress: is told how it goes.

    Raises:
        ConfigError: if the target is no other scale, or the task's model has no scale.
        SearchError: if everything diverges at some scale.
    """
    noted, config = bool(config.proxy), with_proxy(config, task, seed)
    full = task.full()
    target = scale, batch_size or full.batch_size, steps or full.steps
    if target == (1.0, task.batch_size, task.steps):
        raise ConfigError("this is the task's own scale; name another by --scale, --steps or --batch-size.")
    if scale != 1 and "scale" not in inspect.signature(task.model).parameters:
        raise ConfigError(f"{about(task)}: its model has no scale; write `def model(self, scale=1.0)`.")
    clock = Clock(None, progress or Progress())
    numbers, stops = list(range(seed * 1_000_000, seed * 1_000_000 + seeds)), list[Stop]()
    for share in SHARES:
        there, at = on_the_way(task, target, share)
        decades, values = sweep(Population(there), config, numbers, clock)
        best, error = summit(decades, values)
        rates, means = [float(config.lr * 10**d) for d in decades], values.mean(axis=1).tolist()
        stops.append(Stop(share, at, there.batch_size, there.steps, rates, means, best, error))
    centre, spread, drift = extrapolate(stops)
    low, best, high = (float(config.lr * 10 ** (centre + z * spread)) for z in (-NORMAL, 0.0, NORMAL))
    holds = abs(drift[0]) < max(0.25, NORMAL * drift[1])
    return Transfer(best, low, high, drift, holds, *target, stops, noted)


def with_proxy(config: Config, task: Task, seed: int) -> Config:
    """The config, with the task's model and training as its proxy if it does not say what its proxy was."""
    if config.proxy:
        return config
    with forked(task.device):
        reseed(task.device, seed)
        examples = length(splits(task)["train"][1])
        return replace(config, proxy=proxy_of(task.model(), task.batch_size, task.steps, examples))


def predicted_at_full_length(
    task: Task, configs: Mapping[str, Config], *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Config]:
    """The configs with the learning rates that are predicted for the task at full length.

    Args:
        task: at the scale of the proxy.
        configs: by name.
        seed: of all random numbers.
        progress: is told how it goes.

    Raises:
        ConfigError: if the full length is the proxy's; and as `transfer`.
        SearchError: as `transfer`.
    """
    full = task.full()
    if (full.steps, full.batch_size) == (task.steps, task.batch_size):
        raise ConfigError(f"{about(task)}: its full length is that of the proxy; leave out --full.")
    known = {name: with_proxy(config, task, seed) for name, config in configs.items()}
    found = {name: transfer(task, config, seed=seed, progress=progress) for name, config in known.items()}
    return {name: replace(config, lr=found[name].lr) for name, config in known.items()}


def on_the_way(task: T, target: tuple[float, int, int], share: float) -> tuple[T, float]:
    """The task some part of the way to a target, in logarithms; and the scale of its model."""
    there, scale = copy.copy(task), target[0] ** share
    there.batch_size = round(task.batch_size * (target[1] / task.batch_size) ** share)
    there.steps = round(task.steps * (target[2] / task.steps) ** share)
    if target[0] != 1:
        there.model = partial(type(task).model, there, scale)  # type: ignore[method-assign, call-arg]
    return there, scale


def sweep(
    population: Population, config: Config, seeds: list[int], clock: Clock
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates around a config's, in decades from it, and the metric `[rates, seeds]` at each.

    There are more where the best one is on an edge.
    """
    steps = population.task.steps
    found = dict[int, NDArray[np.float64]]()
    wanted = list(range(-AROUND, AROUND + 1))
    while wanted and len(found) <= 2 * AROUND + FURTHER:
        clock.training(len(wanted) * len(seeds) * steps)
        configs = [replace(config, lr=float(config.lr * 10 ** (i * DECADE))) for i in wanted]
        values = population.train(configs, seeds, steps, progress=clock.advance)["valid"]
        found |= dict(zip(wanted, values, strict=True))
        best = max(found, key=lambda i: usable(found[i]))
        wanted = [
            i for i in (best - 2, best - 1, best + 1, best + 2) if best in (min(found), max(found)) and i not in found
        ]
    order = sorted(found)
    return np.array(order) * DECADE, np.array([found[i] for i in order])


def usable(values: NDArray[np.float64]) -> float:
    """The mean over seeds; minus infinity where a training has diverged."""
    return -np.inf if np.isnan(values).any() else float(values.mean())


def summit(decades: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """Where a metric `[rates, seeds]` is best, in decades, and the standard error over seeds.

    A parabola through the best rate and its neighbours, for all seeds and without each one (the jackknife).
    """
    means = np.array([*map(usable, values)])
    if not np.isfinite(means).any():
        raise SearchError("every training diverged at one of the scales; begin with a config of a lower rate.")
    count = values.shape[1]
    without = (np.delete(values, i, axis=1).mean(axis=1) for i in range(count))
    others = [top(decades, np.where(np.isfinite(means), each, -np.inf)) for each in without]
    return top(decades, means), float(np.sqrt((count - 1) * np.var(others)))


def top(decades: NDArray[np.float64], means: NDArray[np.float64]) -> float:
    """The top of a parabola through the best of these and its neighbours, in decades; the best itself at an edge."""
    i = int(means.argmax())
    near = slice(i - 1, i + 2)
    if not 0 < i < len(means) - 1 or not np.isfinite(means[near]).all():
        return float(decades[i])
    a, b, _ = np.polyfit(decades[near], means[near], 2)
    return float(np.clip(-b / (2 * a), decades[i - 1], decades[i + 1])) if a < 0 else float(decades[i])


def extrapolate(stops: list[Stop]) -> tuple[float, float, tuple[float, float]]:
    """The best rate at the target in decades from the file's, its standard deviation, and drift with its own.

    Bayesian linear regression of the best rates on the share of the way: the laws say that they do not move.
    """
    x = np.array([[1.0, stop.share] for stop in stops])
    y = np.array([stop.best for stop in stops])
    weights = 1 / (np.array([stop.error for stop in stops]) ** 2 + GRID**2)
    covariance = np.linalg.inv(x.T * weights @ x + np.diag([OFFSET**-2, DRIFT**-2]))
    mean = covariance @ (x.T * weights @ y)
    ahead = np.array([1.0, 1.0])
    return (
        float(ahead @ mean),
        float(np.sqrt(ahead @ covariance @ ahead)),
        (float(mean[1]), float(covariance[1, 1] ** 0.5)),
    )

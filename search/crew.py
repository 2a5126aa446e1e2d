"""Populations that several workers train: each chunk of candidates is an item of work for an engine."""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.search.engine.engine import Engine, Lost
from autoranger.search.engine.pool import Pool
from autoranger.search.engine.process import Processes, can_fork
from autoranger.search.population.population import Population, Scores, blank
from autoranger.search.race.objectives import with_objective
from autoranger.search.tasks import create
from autoranger.search.tasks.task import Origin, Task
from autoranger.search.tasks.words import about, reason

PULSE = 0.5
"""Seconds between the signs of life of a worker."""

TRIES = 2
"""How often a chunk is trained whose worker is lost, before it is cut in two."""


@dataclass(frozen=True)
class Batch:
    """Candidates to train together, an item of work.

    Args:
        configs, seeds, steps, splits, curve: see `Population.train`.
    """

    configs: tuple[Config, ...]
    seeds: tuple[int, ...]
    steps: int
    splits: tuple[str, ...]
    curve: int = 0


@dataclass(frozen=True)
class Trained:
    """What came of a batch.

    Args:
        scores: see `Population.train`.
        failures: why candidates have failed, by their indices.
        error: why the task cannot be trained at all; empty if it can.
    """

    scores: Scores = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    error: str = ""


class Training:
    """The `Work` of training batches of a task, by a population of the worker's own.

    Args:
        task: the task, or where it can be had.
        objective: of the search.
        devices: of the workers, by their numbers; if there are more workers, it begins again. None is the task's own.
    """

    def __init__(self, task: Task | Origin, objective: str, devices: Sequence[str] | None = None) -> None:
        self.task, self.objective, self.devices = task, objective, devices
        self.population: Population | None = None

    def prepare(self, number: int) -> Population:
        """See `Work`."""
        if self.population is None:
            device = self.devices[number % len(self.devices)] if self.devices else None
            self.population = Population(with_objective(made(self.task, device), self.objective)[0])
        return self.population

    def __call__(self, item: Batch, number: int, tell: Callable[[tuple[int] | None], None]) -> Trained:
        """See `Work`."""
        population, told = self.prepare(number), time.monotonic()

        def pulse() -> None:
            nonlocal told
            if time.monotonic() - told > PULSE:
                told = time.monotonic()
                tell(None)

        population.pulse, population.failures = pulse, {}
        try:
            with population.initialised(item.seeds):
                scores = population.train_chunk(
                    item.configs, item.seeds, item.steps, item.splits, item.curve, lambda done: tell((done,))
                )
        except (ConfigError, DataError) as error:
            return Trained(error=str(error))
        failures = {k: population.failures[c] for k, c in enumerate(item.configs) if c in population.failures}
        return Trained(scores, failures)


def made(task: Task | Origin, device: str | None) -> Task:
    """A task, or the one of an origin, on a device if one is named."""
    if isinstance(task, Origin):
        return create(task.spec, device or task.device, task.data_dir)
    moved = copy.copy(task)
    moved.device = task.device if device is None else torch.device(device)
    return moved


def processes(task: Task, objective: str, size: int, devices: Sequence[str] | None = None) -> Pool:
    """An engine whose worker processes train a task.

    Args:
        task: is made anew in each if `tasks.create` has made it, and is otherwise sent to it, or copied by a fork.
        objective: of the search.
        size: how many workers.
        devices: see `Training`.

    Raises:
        ConfigError: if the task can neither be made, sent nor copied.
    """
    work = Training(task.origin or task, objective, devices)
    threads = max(1, torch.get_num_threads() // size)
    try:
        pickled = pickle.dumps(work)
    except Exception as error:
        if not can_fork():
            raise ConfigError(
                f"{about(task)}: cannot be sent to worker processes ({reason(error)}); define it in a file, and use "
                "autoranger.search.tasks.create."
            ) from error
        return Pool([Processes(work, size, 1)])
    return Pool([Processes(pickled, size, threads)])


class Crew:
    """A `Trainer` whose candidates an engine's workers train.

    Candidates are cut into chunks as for so many workers as there are at the beginning. What a worker had that is lost is
    trained again by another one, the second time in halves; a single candidate that is lost again has failed.

    Args:
        population: of the task, in this process. It trains nothing, but says how candidates are cut into chunks, and
            its `pulse` is called again and again.
        engine: does the `Training`.

    Attributes:
        failures: why candidates have failed.
    """

    def __init__(self, population: Population, engine: Engine) -> None:
        self.population, self.engine, self.workers = population, engine, engine.size
        self.failures = dict[Config, str]()

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        curve: int = 0,
        progress: Callable[[int], None] = lambda done: None,
        report: Callable[[list[Config], Scores], None] = lambda configs, scores: None,
        among: Sequence[Config] = (),
    ) -> Scores:
        """See `Population.train`."""
        place = {config: k for k, config in enumerate(configs)}
        scores = blank(len(configs), len(seeds), splits, curve)
        batches = [
            Batch(tuple(configs[k] for k in chunk), tuple(seeds), steps, tuple(splits), curve)
            for chunk in self.population.chunks(configs, seeds, among, self.workers)
        ]
        for batch, trained in self._train(batches, progress):
            if trained.error:
                raise ConfigError(trained.error)
            self.failures |= {batch.configs[int(k)]: why for k, why in trained.failures.items()}
            report(list(batch.configs), trained.scores)
            for split, values in trained.scores.items():
                scores[split][[place[config] for config in batch.configs]] = values
        return scores

    def _train(self, batches: list[Batch], progress: Callable[[int], None]) -> Iterator[tuple[Batch, Trained]]:
        """Yields batches with what came of them, until all are done."""
        tries = dict[Batch, int]()
        while batches:
            lost, heard = list[Batch](), Heard(progress, self.population.pulse)
            with closing(self.engine.run(batches, heard)) as found:
                for batch, trained in found:
                    if not isinstance(trained, Lost):
                        heard.done.pop(batch, None)
                        yield batch, trained
                        continue
                    progress(-heard.done.pop(batch, 0))
                    tries[batch] = tries.get(batch, 0) + (0 if trained.away else 1)
                    if tries[batch] < TRIES:
                        lost.append(batch)
                    elif len(batch.configs) > 1:
                        lost += halves(batch)
                    else:
                        shape = 1, len(batch.seeds)
                        yield batch, Trained(blank(*shape, batch.splits, batch.curve), {0: trained.why})
            batches = lost


class Heard:
    """A `Listener` that passes progress on.

    Args:
        progress: is told of steps that are done.
        pulse: called again and again.

    Attributes:
        done: steps of the batches that are being trained.
    """

    def __init__(self, progress: Callable[[int], None], pulse: Callable[[], None]) -> None:
        self.progress, self.pulse = progress, pulse
        self.done = dict[Batch, int]()

    def begun(self, item: Batch) -> None:
        """See `Listener`."""
        self.done[item] = 0

    def reported(self, item: Batch, *message: Any) -> None:
        """See `Listener`."""
        self.done[item] += message[0]
        self.progress(message[0])


def halves(batch: Batch) -> list[Batch]:
    """A batch as two."""
    middle = math.ceil(len(batch.configs) / 2)
    return [
        Batch(configs, batch.seeds, batch.steps, batch.splits, batch.curve)
        for configs in (batch.configs[:middle], batch.configs[middle:])
    ]

"""A trainer whose candidates an engine's workers train, and the engines for it."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import torch

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.crew.batch import Batch, Trained, Training
from autoranger.search.engine.board import Board
from autoranger.search.engine.cluster import Actors, Cluster
from autoranger.search.engine.engine import Engine, Lost
from autoranger.search.engine.pool import Pool
from autoranger.search.engine.process import Processes, can_fork, usual
from autoranger.search.engine.thread import Here
from autoranger.search.population.population import Population, Scores, blank
from autoranger.search.tasks.task import Task
from autoranger.search.tasks.words import about, reason

TRIES = 2
"""How often a chunk is trained whose worker is lost, before it is cut in two."""


class Joined(BaseException):
    """Raised between two chunks when the first worker has joined. Not an Exception, since it is no error."""


class Crew:
    """A `Trainer` whose candidates an engine's workers train, or this process as long as there are no others.

    Chunks are as if the workers at the beginning were all there will ever be, so that the scores do not depend on who
    trains. A chunk whose worker is lost is trained again by another, and if that is lost, too, in halves. A single
    candidate that is lost again has failed.

    Args:
        population: of the task, in this process. Its `pulse` is called again and again.
        engine: does the `Training`.

    Attributes:
        failures: why candidates have failed.
    """

    def __init__(self, population: Population, engine: Engine) -> None:
        self.population, self.engine = population, engine
        self.workers = engine.others or population.workers
        self.failures = dict[Config, str]()
        self._exchange()

    def _exchange(self) -> None:
        """Leaves models that have to be trained one by one to other processes, if there are any in reserve."""
        if self.population.ways.training is None and self.engine.exchange():
            self.workers = self.engine.others

    @property
    def task(self) -> Task:
        """What it trains."""
        return self.population.task

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
        self._exchange()
        place = {config: k for k, config in enumerate(configs)}
        scores, left = blank(len(configs), len(seeds), splits, curve), dict.fromkeys(configs)

        def note(part: list[Config], found: Scores) -> None:
            for split, values in found.items():
                scores[split][[place[config] for config in part]] = values
            for config in part:
                del left[config]
            report(part, found)

        def note_alone(part: list[Config], found: Scores) -> None:
            note(part, found)
            if left and self.engine.others:
                raise Joined

        if not self.engine.others:
            try:
                every: dict[str, Any] = {"splits": splits, "curve": curve, "progress": progress, "among": among}
                self.population.train(configs, seeds, steps, report=note_alone, **every)
            except Joined:
                pass
            self.failures |= self.population.failures
            if not left:
                return scores
        rest, folder = list(left), self._opened()
        batches = [
            Batch(tuple(rest[k] for k in chunk), tuple(seeds), steps, tuple(splits), curve, folder)
            for chunk in self.population.chunks(rest, seeds, among or configs, self.workers)
        ]
        batches.sort(key=lambda batch: -batch.work)  # the longest first, so that all workers end at about the same time
        for batch, trained in self._train(batches, progress):
            if trained.error:
                raise ConfigError(trained.error)
            self.failures |= {batch.configs[k]: why for k, why in trained.failures.items()}
            note(list(batch.configs), trained.scores)
            if self.population.checkpoints is not None:
                self.population.checkpoints.drop(batch.configs)
        return scores

    def _opened(self) -> str:
        """The folder of checkpoints, which is there from now on: workers use one that they see. Empty for none."""
        if self.population.checkpoints is None:
            return ""
        folder = self.population.checkpoints.folder
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def _train(self, batches: list[Batch], progress: Callable[[int], None]) -> Iterator[tuple[Batch, Trained]]:
        """Yields batches with what came of them, until all are done."""
        tries = dict[Batch, int]()
        while batches:
            lost, heard = list[Batch](), Heard(progress, self.population.pulse)
            with closing(self.engine.run(batches, heard)) as found:
                for batch, trained in found:
                    done = heard.done.pop(batch, 0)
                    if not isinstance(trained, Lost):
                        progress(batch.work - done)
                        yield batch, trained
                        continue
                    progress(-done)
                    tries[batch] = tries.get(batch, 0) + (0 if trained.away else 1)
                    if tries[batch] < TRIES:
                        lost.append(batch)
                    elif len(batch.configs) > 1:
                        lost += halves(batch)
                    else:
                        nothing = blank(1, len(batch.seeds), batch.splits, batch.curve)
                        yield batch, Trained(nothing, {0: trained.why})
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
        self.progress(message[0] - self.done[item])
        self.done[item] = message[0]


def halves(batch: Batch) -> list[Batch]:
    """A batch as two."""
    middle = math.ceil(len(batch.configs) / 2)
    return [replace(batch, configs=configs) for configs in (batch.configs[:middle], batch.configs[middle:])]


def engine(
    task: Task,
    objective: str,
    *,
    workers: int | None = None,
    devices: Sequence[str] = (),
    cluster: Cluster | None = None,
    board: Board | None = None,
) -> Pool:
    """An engine whose workers train a task.

    Args:
        task: is made anew in each worker process if `tasks.create` has made it; otherwise it is sent to them, or copied
            by forks.
        objective: of the search.
        workers: how many processes. With one, and no devices, it is this process. By default it is this process, and
            `usual` others if its threads cannot share the work: if models on a CPU have to be trained one by one.
        devices: one for each process.
        cluster: of Ray, whose actors train instead of processes.
        board: with workers that join.

    Raises:
        ConfigError: if there are to be processes, and the task can neither be sent nor copied; or as `Actors`.
        DataError: as `Actors`.
    """
    work, size = Training(task.origin or task, objective, devices), max(workers or 1, len(devices))
    joining = [] if board is None else [board]
    if cluster is not None:
        actors = Actors(work, cluster)
        strength = 1 if cluster.gpus else cluster.cpus / torch.get_num_threads()
        return Pool([actors, *joining], speed=max(1.0, actors.size * strength))
    if size == 1 and not devices:
        alone = workers is None and task.device.type == "cpu" and usual() > 1
        return Pool([Here(work), *joining], reserve=(lambda: processes(work, task, usual())) if alone else None)
    return Pool([processes(work, task, size), *joining], speed=max(1, len(devices)))


def processes(work: Training, task: Task, size: int) -> Processes:
    """Processes of this machine for the work."""
    try:
        pickled = pickle.dumps(work)
    except Exception as error:
        if not can_fork():
            raise ConfigError(
                f"{about(task)}: it cannot be sent to worker processes ({reason(error)}); define it in a file of "
                "its own, and name that as --task."
            ) from error
        return Processes(work, size, threads=1)
    return Processes(pickled, size, threads=max(1, torch.get_num_threads() // size))

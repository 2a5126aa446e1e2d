"""A chunk of candidates as an item of work, and the work: a population of the worker's own trains it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.search.population.checkpoint import Checkpoints
from autoranger.search.population.population import Population, Scores
from autoranger.search.race.objectives import with_objective
from autoranger.search.serialization import to_json
from autoranger.search.tasks import create
from autoranger.search.tasks.task import Origin, Task

PULSE = 0.5
"""Seconds between the signs of life of a worker."""


@dataclass(frozen=True)
class Batch:
    """Candidates to train together, an item of work.

    Args:
        configs, seeds, steps, splits, curve: see `Population.train`.
        checkpoints: the folder of the study's checkpoints, for workers that see it; empty for none.
    """

    configs: tuple[Config, ...]
    seeds: tuple[int, ...]
    steps: int
    splits: tuple[str, ...]
    curve: int = 0
    checkpoints: str = ""

    @property
    def work(self) -> int:
        """Its candidate-steps, those of all seeds."""
        return len(self.configs) * len(self.seeds) * self.steps

    @property
    def summary(self) -> str:
        """What it is, in words."""
        return f"{len(self.configs)} candidates × {len(self.seeds)} seeds × {self.steps} steps"

    def to_data(self) -> dict[str, Any]:
        """The batch as plain data."""
        return asdict(self) | {"configs": [config.to_dict() for config in self.configs]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Batch:
        """The batch of plain data."""
        configs = tuple(Config.from_dict(config) for config in data["configs"])
        lists = {name: tuple(data[name]) for name in ("seeds", "splits")}
        return cls(**{**data, **lists, "configs": configs})


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

    def to_data(self) -> dict[str, Any]:
        """The result as plain data."""
        scores = {split: to_json(values.tolist()) for split, values in self.scores.items()}
        return {"scores": scores, "failures": dict(self.failures), "error": self.error}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Trained:
        """The result of plain data."""
        scores = {split: np.array(values, dtype=float) for split, values in data["scores"].items()}
        return cls(scores, {int(k): why for k, why in data["failures"].items()}, data["error"])


class Training:
    """The `Work` of training batches of a task, by a population of the worker's own.

    Args:
        task: the task, or where it can be had.
        objective: of the search.
        devices: one for each worker. By default all train on the task's.
    """

    def __init__(self, task: Task | Origin, objective: str, devices: Sequence[str] = ()) -> None:
        self.task, self.objective, self.devices = task, objective, devices
        self.population: Population | None = None
        self.checkpoints: Checkpoints | None = None

    def prepare(self, number: int) -> Population:
        """See `Work`."""
        if self.population is None:
            device = self.devices[number] if self.devices else None
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

        steps = 0

        def progress(done: int) -> None:
            nonlocal steps
            steps += done
            tell((steps,))

        population.pulse, population.failures = pulse, {}
        population.checkpoints = self._among(item.checkpoints)
        try:
            with population.initialised(item.seeds):
                scores = population.train_chunk(item.configs, item.seeds, item.steps, item.splits, item.curve, progress)
        except (ConfigError, DataError) as error:
            return Trained(error=str(error))
        finally:
            population.pulse = lambda: None
        failures = {k: population.failures[c] for k, c in enumerate(item.configs) if c in population.failures}
        return Trained(scores, failures)

    def _among(self, folder: str) -> Checkpoints | None:
        """The checkpoints in a folder; None if it is not there, as on a machine that does not share it."""
        if not folder or not Path(folder).is_dir():
            return None
        if self.checkpoints is None or self.checkpoints.folder != Path(folder):
            self.checkpoints = Checkpoints(Path(folder))
        return self.checkpoints


def made(task: Task | Origin, device: str | None) -> Task:
    """A task, or the one of an origin, on a device if one is named."""
    if isinstance(task, Origin):
        return create(task.spec, device or task.device, task.data_dir)
    moved = copy.copy(task)
    moved.device = task.device if device is None else torch.device(device)
    return moved

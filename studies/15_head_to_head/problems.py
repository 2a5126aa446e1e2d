"""What is trained: shipped tasks and three scripts of users, each a function of a trial as `autoranger.tune` takes one.

The loop for a task is torch's own, one model after another, and knows nothing of a population.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from autoranger.search.population.data import splits
from autoranger.search.tasks import create
from autoranger.search.tasks.task import Task
from autoranger.search.vectorization import batch_order, reseed

DATA = "HEAD_TO_HEAD_DATA"
"""Environment variable with the folder of data files, which workers read, too."""

REPORTS = 10
"""Reports of a training of a task to a pruner."""


@dataclass(frozen=True)
class Problem:
    """What a contestant finds an optimizer for.

    Args:
        name: of a shipped task, or of a script beside this file.
        longer: length of a full training, in trainings of the length that is searched at.
        sign: −1 if lower is better.
        task: whether it is a task.
    """

    name: str
    longer: int
    sign: int = 1
    task: bool = False

    def train(self, trial: Any) -> dict[str, float]:
        """Trains once. Returns the score on the validation data and on the test data, higher is better."""
        returned = train_task(self.name, trial) if self.task else script(self.name)(trial)
        valid = next(value for name, value in returned.items() if name != "test")
        return {"valid": self.sign * float(valid), "test": self.sign * float(returned["test"])}


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("digits", 10, task=True),
        Problem("diabetes", 10, task=True),
        Problem("fashion", 5, task=True),
        Problem("cifar", 5, task=True),
        Problem("shakespeare", 3, task=True),
        Problem("rows", 4),
        Problem("table", 4),
        Problem("text", 3, sign=-1),
    )
}


def script(name: str) -> Callable[[Any], dict[str, float]]:
    """The training function of a script."""
    return import_module(name).train  # type: ignore[no-any-return]


@cache
def task_of(name: str) -> Task:
    """A shipped task."""
    folder = os.environ.get(DATA)
    return create(name, "cpu", Path(folder) if folder else None)


@cache
def data_of(name: str) -> dict[str, Any]:
    """Its data."""
    return splits(task_of(name))


def train_task(name: str, trial: Any) -> dict[str, float]:
    """One training of a task, in torch's own loop, on the batches that a population trains on."""
    task, data = task_of(name), data_of(name)
    inputs, targets = data["train"]
    cpu, steps = torch.device("cpu"), max(1, round(task.steps * trial.length))
    model = task.model()
    optimizer = trial.build(model, total_steps=steps)
    looks = {round(steps * (i + 1) / REPORTS) for i in range(REPORTS - 1)}
    for t, indices in enumerate(batch_order(len(targets), task.batch_size, steps, trial.seed)):
        reseed(cpu, t)
        model.train()
        optimizer.zero_grad()
        task.loss(model(task.augment(inputs[indices])), targets[indices]).backward()
        optimizer.step()
        if t + 1 in looks and trial.watched:
            trial.report(score(task, model, data["valid"]), t + 1)
    with getattr(optimizer, "evaluation", nullcontext)():  # of ours, which a search of a task scores, too
        return {part: score(task, model, data[part]) for part in ("valid", "test")}


@torch.no_grad()
def score(task: Task, model: Any, split: Any) -> float:
    """The metric of a model on a part of the data."""
    model.eval()
    return float(task.metric(torch.cat([model(x) for x in split[0].split(1000)]), split[1]))

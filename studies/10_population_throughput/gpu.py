"""The measurement on a GPU, for `run.py --device cuda`: ways to run a population, against ways to train one model.

A population is {float32, bfloat16} × {graphs, no graphs}; one model is trained with
`torch.optim.AdamW(fused=True)` in both precisions, as it is and as a CUDA graph of a whole step. Candidate-steps per
second, from the difference between a long and a short training, so that neither compilation nor capture counts.

Each task gets an equal share of the time, and what is most telling comes first. The record is written after each
figure; what fails or is left out is noted in its place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import torch

from autoranger import Config
from autoranger.bench import machine
from autoranger.components.core.errors import first_line
from autoranger.search.population.population import POLL, Population
from autoranger.search.population.replay import Replayed
from autoranger.search.space import Space, lr_grid
from autoranger.search.tasks import find
from autoranger.search.tasks.task import Task
from autoranger.search.vectorization import batch_order

SIZES = (256, 64, 1, 16, 1024)
"""Candidates, in the order in which they are measured."""

WAYS = list(product(("float32", "bfloat16"), ("graphs", "no graphs")))
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
SHORT, LONG = POLL, 4 * POLL
"""Steps of the trainings whose difference counts; the long one gets longer where that would take no time at all."""

MOST = 8.0
"""Seconds that the trainings of a figure may take, going by two steps; it is left out otherwise."""


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steps_per_second(train: Callable[[int], object], device: torch.device, seconds: float) -> float:
    def timed(steps: int) -> float:
        wait(device)
        begin = time.perf_counter()
        train(steps)
        wait(device)
        return time.perf_counter() - begin

    timed(2)
    if (two := timed(2)) / 2 * (3 * SHORT + LONG) > MOST:
        raise TimeoutError(f"{two / 2:.2f} s a step, going by two")
    timed(SHORT)
    short, more = timed(SHORT), LONG - SHORT
    extra = timed(SHORT + more) - short
    if extra < seconds:
        more = min(2000, round(more * seconds / max(extra, seconds / 50)))
        extra = timed(SHORT + more) - short
    if extra < short / 4:  # lost in the noise of what is not counted: with it, as a lower bound
        return (SHORT + more) / (short + extra)
    return more / extra


def alone(trainer: Population, precision: torch.dtype | None, graph: bool) -> Callable[[int], None]:
    """One model, as one writes it by hand for a GPU, with all data there."""
    task, (inputs, targets) = trainer.task, trainer.data["train"]

    def train(steps: int) -> None:
        model = task.model().to(trainer.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, capturable=graph)
        order = batch_order(len(inputs), task.batch_size, steps, 0).to(trainer.device)

        def step(x: torch.Tensor, y: torch.Tensor) -> None:
            optimizer.zero_grad()
            # In a graph without a cache of casts, as torch asks for.
            with torch.autocast(trainer.device.type, precision, bool(precision), cache_enabled=not graph):
                output = model(x)
            task.loss(output.float(), y).backward()
            optimizer.step()

        run = Replayed(step, torch.cuda.Stream(trainer.device)) if graph else step
        for indices in order:
            run(task.augment(inputs[indices]), targets[indices])

    return train


def noted(call: Callable[[], float]) -> float | str:
    """What a call returns, or what went wrong."""
    try:
        return round(call(), 1)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)[:200]}"


def alone_figures(trainer: Population, seconds: float) -> Iterator[tuple[str, float | str]]:
    for precision, graph in product(PRECISIONS, (False, True)):
        train = alone(trainer, PRECISIONS[precision], graph)
        found = noted(partial(steps_per_second, train, trainer.device, seconds))
        yield f"{precision}, {'graph' if graph else 'no graph'}", found


def population_figures(task: Task, seconds: float, end: float) -> Iterator[tuple[str, int, float | str]]:
    """For each arm, way and size; none is measured after `end`."""
    space, grid = Space(), lr_grid(*task.lr_range)
    arms = {"ranger21": [space.default], "256 subsets": space.arms(256, 0), "adamw": [space.plain]}
    failed: dict[str, int] = {}

    @cache
    def trainer(precision: str, graphs: str) -> Population:
        return Population(task, precision=PRECISIONS[precision], graphs=graphs == "graphs")

    def rate(configs: list[Config], precision: str, graphs: str) -> float:
        train = partial(trainer(precision, graphs).train, configs, [0], splits=())
        return len(configs) * steps_per_second(train, task.device, seconds)

    for arm, size, way in product(arms, SIZES, WAYS):
        label = ", ".join((arm, *way))
        if time.perf_counter() > end:
            yield label, size, "left out: no time"
        elif size > failed.get(label, size):
            yield label, size, f"left out: nor did {failed[label]} work"
        else:
            pairs = zip(cycle(arms[arm]), cycle(grid), strict=False)
            configs = [replace(config, lr=lr) for config, lr in islice(pairs, size)]
            found = noted(partial(rate, configs, *way))
            if isinstance(found, str):
                failed[label] = size
            yield label, size, found


def measure(tasks: list[str], device: str, seconds: float, budget: float, path: Path) -> None:
    """Writes the record of all tasks to `path`, which keeps what it has of others; `seconds` for each figure."""
    record = json.loads(path.read_text()) if path.exists() else {"tasks": {}}
    record["machine"] = machine(device)
    begin = time.perf_counter()
    for i, name in enumerate(tasks):
        row: dict[str, Any] = {"alone": {}, "population": {}}
        record["tasks"][name] = row
        try:
            task = find(name)(device)
            trainer = Population(task)
            task.data = partial(dict, trainer.data)  # read once
            row["parameters"] = sum(p.numel() for p in trainer.task.model().parameters())
            row["rows_of_a_chunk"] = trainer.rows
            for label, found in alone_figures(trainer, seconds):
                row["alone"][label] = found
                path.write_text(json.dumps(record, indent=1) + "\n")
            for label, size, found in population_figures(task, seconds, begin + budget * (i + 1) / len(tasks)):
                row["population"].setdefault(label, {})[size] = found
                path.write_text(json.dumps(record, indent=1) + "\n")
        except Exception as error:  # data that are not there, for one
            row["stopped"] = f"{type(error).__name__}: {first_line(error)}"
            path.write_text(json.dumps(record, indent=1) + "\n")
        print(name, json.dumps(row), f"{time.perf_counter() - begin:.0f} s", flush=True)

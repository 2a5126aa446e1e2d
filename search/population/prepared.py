"""A task prepared for many rows: its data on the device, models, initialisations, and how models can be called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.private import tree_leaves
from autoranger.search.population.batches import batches
from autoranger.search.population.checks import check_settings
from autoranger.search.population.data import fitted, pooled, splits
from autoranger.search.population.division import division
from autoranger.search.population.memory import free_bytes
from autoranger.search.population.precision import check_precision
from autoranger.search.population.replica import Replica
from autoranger.search.population.ways import Ways
from autoranger.search.tasks.task import Split, Task
from autoranger.search.tasks.words import about
from autoranger.search.vectorization import Tensors, forked, item, length, repeat, reseed

CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 512 << 20}
"""Most bytes of the rows' inputs, and of their parameters, in a chunk."""

CHUNK_ROWS = {"cpu": (8, 512), "cuda": (1, (1 << 16) - 1)}
"""Fewest and most rows of a chunk. On a CPU fewer than 8 do not pay, however large, and more than 512 no longer do
(studies/10_population_throughput); a GPU's grids of blocks end there in their second and third direction."""

SHARE = 32
"""The divisor of the free memory that bounds these bytes: optimizer state, activations and gradients come on top. A
chunk that does not fit after all is halved."""


class Prepared:
    """What the rows of a population have in common.

    Args:
        task: data, model, loss and metric; on `task.device`.
        rows: most rows at once; chosen for the device if None.
        precision: see `Population`.

    Attributes:
        pulse: called before every pass through the model, by any thread. An exception in it ends the training.
        data: the task's splits, on its device.
        pool: what is divided anew for each seed, training and validation data; None if `Task.resplit` is off.
        dtype: the parameters' common type; None if they have several.
        bytes: most bytes of inputs, and of parameters, at once.
        ways: how models are called.
        noisy: whether training or scoring draws random numbers.
        moving: names of the buffers that training changes.
        output_bytes: size of the output for one example. `preflight` sets these four.

    Raises:
        ConfigError: if the task is invalid, or its device does not support the precision.
    """

    def __init__(self, task: Task, rows: int | None, precision: torch.dtype | None) -> None:
        self.pulse: Callable[[], None] = lambda: None
        self.task, self.device, self.precision = task, task.device, precision
        self.bytes = min(CHUNK_BYTES.get(self.device.type, CHUNK_BYTES["cpu"]), free_bytes(self.device) // SHARE)
        self._lock, self._inits = threading.RLock(), dict[int, tuple[Tensors, Tensors]]()
        check_settings(task)
        data = splits(task)
        weights = list(self._init(0)[0].values())
        if not weights:
            raise ConfigError(f"{about(task)}: its model has no parameters to train.")
        check_precision(precision, self.device, weights)
        types = {p.dtype for p in weights if p.is_floating_point()}
        self.dtype = types.pop() if len(types) == 1 else None
        self.data: dict[str, Split] = fitted(data, self.device, self.dtype)
        self.pool: Split | None = None
        if task.resplit:
            self.pool, trains = pooled(task, self.data), length(self.data["train"][1])
            self.data |= {"train": item(self.pool, slice(trains)), "valid": item(self.pool, slice(trains, None))}
        self.rows = rows or self._affordable_rows()
        self.ways, self.noisy = Ways(task), True
        self.moving: list[str] = []
        self.output_bytes = 0

    @property
    def skeleton(self) -> Replica:
        """A model of the task, with the names that the rows' parameters have."""
        return self.replica(0)

    def _batches(self, seeds: Sequence[int], steps: int, first: int = 0) -> Iterator[Split]:
        """For each step the batches `[S, B, ...]` of the seeds, which all candidates share."""
        data = self.data["train"] if self.pool is None else self.pool
        own = [self._divided(seed)[0] for seed in seeds]
        return batches(self.task, data, own, seeds, steps, self.dtype, self.seed_noise, first)

    def part(self, name: str, seeds: Sequence[int]) -> tuple[Split, Tensor | None]:
        """Examples to score, and which of them are each seed's own `[S, N]`, by index; None if all are everybody's."""
        if self.pool is None or name != "valid":
            return self.data[name], None
        return self.pool, torch.stack([self._divided(seed)[1] for seed in seeds]).to(self.device)

    def _divided(self, seed: int) -> tuple[Tensor, Tensor]:
        """The indices of a seed's training and validation examples."""
        train, valid = (length(self.data[name][1]) for name in ("train", "valid"))
        return (torch.arange(train), torch.arange(valid)) if self.pool is None else division(self.pool[1], valid, seed)

    def _affordable_rows(self) -> int:
        """Rows of a chunk: as many as `bytes` of inputs and of parameters allow, within `CHUNK_ROWS`."""
        examples = (x[0] for x in tree_leaves(self.data["train"][0]))
        inputs = sum(x.numel() * x.element_size() for x in examples) * self.task.batch_size
        weights = sum(p.numel() * p.element_size() for part in self._init(0) for p in part.values())
        fewest, most = CHUNK_ROWS.get(self.device.type, CHUNK_ROWS["cpu"])
        return int(min(max(fewest, self.bytes // max(inputs, weights)), most))

    def start(self, candidates: int, seeds: Sequence[int]) -> tuple[Tensors, Tensors]:
        """Stacked parameters and buffers at the start: row k·S + s has the initialisation of seed s."""
        inits = [self._init(seed) for seed in seeds]
        params, buffers = (
            {name: repeat(torch.stack([init[part][name] for init in inits]), candidates) for name in inits[0][part]}
            for part in (0, 1)
        )
        return params, buffers

    def seed_noise(self, seed: int) -> None:
        """Seeds all generators that models and losses may draw from."""
        with self._lock:
            reseed(self.device, seed)

    def replica(self, seed: int) -> Replica:
        """A copy of the task with the model of a seed."""
        with self._lock, forked(self.device):
            reseed(self.device, seed)
            replica = Replica(self.task, self.precision, lambda: self.pulse())
        if any(isinstance(p, UninitializedParameter) for p in replica.parameters()):
            raise ConfigError(f"{about(self.task)}: its model has lazy layers; call it once on an example in model().")
        return replica

    def _init(self, seed: int) -> tuple[Tensors, Tensors]:
        """The trained parameters of a seed's new model, and everything else in it that may differ between seeds."""
        if seed not in self._inits:
            self._inits[seed] = self.replica(seed).weights()
        return self._inits[seed]

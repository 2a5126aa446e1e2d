"""A chunk: rows that train together, step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoranger.components.core.component import Stage, registry
from autoranger.components.core.config import Config
from autoranger.components.core.rows import by_rows, is_matrix, row_shape
from autoranger.components.core.step import Step
from autoranger.components.core.transposed import transposed
from autoranger.components.kernel.compile import compile_step
from autoranger.components.optimizer.groups import compute_dtype
from autoranger.components.optimizer.scaling import by_parameter
from autoranger.components.presets import MODERN
from autoranger.search.population.models import Alone, Together
from autoranger.search.population.prepared import Prepared
from autoranger.search.population.score import score
from autoranger.search.vectorization import Tensors, Tree

DIVERGED = "diverged: its loss or a weight is not finite"


COMPILED_ALONE = 10_000
"""Rows × steps of a chunk from which on a step of its own is worth its compilation, some seconds."""


class RefusedError(Exception):
    """`torch.func.vmap` refuses to call a model for many rows, or its result cannot be trusted."""


class Chunk:
    """Rows that train together: their parameters, buffers, optimizer state, and which of them have failed.

    A row diverges when its loss or a parameter is not finite. It is then frozen, and does not affect the other rows.
    So is a row on which the task's loss or metric raises an error.
    """

    def __init__(self, population: Prepared, configs: Sequence[Config], seeds: Sequence[int], steps: int) -> None:
        self.population, self.configs, self.seeds, self.way = population, configs, seeds, population.ways.training
        self.shape, self.rows = (len(configs), len(seeds)), len(configs) * len(seeds)
        self.part = cache(partial(population.part, seeds=seeds))  # for several looks; it must not refer to the chunk
        self.models: Together | Alone = (
            Alone(population, len(configs), seeds)
            if self.way is None
            else Together(population, len(configs), seeds, self.way)
        )
        self.params, self.buffers = self.models.params, self.models.buffers
        self.turns = transposed_among(self.models.example, self.params)
        self.views = [by_rows(p.detach(), turns, 1) for p, turns in zip(self.params.values(), self.turns, strict=True)]
        self.thetas = [
            view.reshape(self.rows, 1, *row_shape(p.shape[1:], turns))  # a copy where turning moves numbers
            for p, view, turns in zip(self.params.values(), self.views, self.turns, strict=True)
        ]
        dtype, device = compute_dtype(self.thetas), population.device
        rows = [c for c in configs for _ in seeds]
        names = [name.removeprefix("model.") for name in self.params]
        batch_size = population.task.batch_size
        of_each = configs_among(self.models.example.model, names, configs, steps, batch_size)
        groups = [*dict.fromkeys(of_each)]
        of_groups = [[c for c in group for _ in seeds] for group in groups]
        short = self.rows * steps < COMPILED_ALONE
        switched = in_common(configs) if short else ()
        self.optimizer = Step(rows, steps, dtype=dtype, device=device, groups=of_groups, switched=switched)
        for theta, p, turns, group in zip(self.thetas, self.params.values(), self.turns, of_each, strict=True):
            self.optimizer.add(theta, matrix=is_matrix(p.shape[1:], turns), group=groups.index(group))
        # Compiling takes about a second for every other set of components, and four on a GPU: next to models that are
        # called one after another, or to a graph, it saves nothing (studies/10_population_throughput).
        pays = device.type == "cpu" and not isinstance(self.models, Alone)
        self.kernel = compile_step(self.optimizer, self.thetas, "auto") if pays else None
        self.failed = torch.zeros(self.rows, dtype=torch.bool, device=device)
        self.alive: Tensor | None = None
        self.lost = 0

    def advance(self, inputs: Tree, targets: Tree) -> None:
        """Takes one step with every row, on the seeds' batches `[S, B, ...]`."""
        self.models.train(True)
        losses, grads, used = self.models.gradients(inputs, targets)
        self.failed |= ~losses.detach().isfinite()
        flat = [
            torch.zeros_like(theta) if g is None else by_rows(g, turns, 1).reshape(theta.shape).contiguous()
            for g, theta, turns in zip(grads, self.thetas, self.turns, strict=True)
        ]
        active = self._active([g is not None for g in grads], used)
        for view, theta in self._turned():
            theta.copy_(view)
        if self.kernel is not None:
            self.kernel(self.thetas, flat, active)
        else:
            masks = None if active is None else list(active[..., None, None, None].unbind(1))
            self.optimizer(self.thetas, flat, masks)
        for view, theta in self._turned():
            view.copy_(theta)

    def _turned(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters whose rows are not one after another in memory, and their copies in which they are."""
        for view, theta in zip(self.views, self.thetas, strict=True):
            if view.data_ptr() != theta.data_ptr():
                yield view, theta.view(view.shape)

    def _active(self, needed: list[bool], used: Tensor | None) -> Tensor | None:
        """Which parameters `[rows, stacks]` are updated: those of rows that are left, if their loss depends on them.

        Others stay as they are, as torch's optimizers leave a parameter without a gradient alone.
        """
        if all(needed) and used is None:
            return self.alive
        shape = (self.rows, len(self.thetas))
        active = self.failed.new_ones(shape) if self.alive is None else self.alive.clone()
        for i, need in enumerate(needed):
            if not need:
                active[:, i] = False
        return active if used is None else active & used

    def poll(self) -> bool:
        """Freezes the rows that have failed, and returns whether any others are left. Waits for the device."""
        lost = self.failed.nonzero()[:, 0].tolist()
        if len(lost) > self.lost:
            self.lost = len(lost)
            for row in lost:
                self.models.failures.setdefault(row, DIVERGED)
            self._freeze()
        return self.lost < self.rows

    def _freeze(self) -> None:
        """Leaves rows that have failed out of further steps, with their initial weights: nobody else meets a NaN."""
        alive = (~self.failed)[:, None].repeat(1, len(self.thetas))
        # In place from the second time on: what is captured in a CUDA graph reads it where it is.
        self.alive = alive if self.alive is None else self.alive.copy_(alive)
        if isinstance(self.models, Together):
            with torch.no_grad():
                for mine, start in zip(
                    (self.params, self.buffers), self.population.start(self.shape[0], self.seeds), strict=True
                ):
                    for name, x in mine.items():
                        x[self.failed] = start[name][self.failed]

    def state(self) -> Tensors:
        """All tensors that training changes, as they are in memory."""
        optimizer = {f"optimizer.{name}": x for name, x in self.optimizer.state_dict().items()}
        models = {f"model.{name}": x for name, x in self.models.state().items()}
        return models | optimizer | {"failed": self.failed}

    @torch.no_grad()
    def restore(self, tensors: Tensors, failures: Mapping[int, str], step: int) -> None:
        """Brings the rows to where another chunk of the same candidates was.

        Args:
            tensors: its `state`.
            failures: the reasons of its failed rows.
            step: after which that was.
        """
        for name, x in self.state().items():
            x.copy_(tensors[name])
        for view, theta in self._turned():
            theta.copy_(view)
        self.models.failures |= failures
        self.models.go_on(step)
        self.poll()

    def isolate(self, inputs: Tree, targets: Tree, step: int, error: Exception) -> None:
        """Freezes the rows whose batch raised an error in a step; raises RefusedError if no single row did."""
        found = self.models.isolate(inputs, targets, step) if isinstance(self.models, Together) else {}
        if not found:
            raise RefusedError from error
        self.failed[list(found)] = True
        self.poll()

    @torch.no_grad()
    def score(self, part: str) -> NDArray[np.float64]:
        """The metric `[K, S]` on a part of the data; NaN if a row has failed."""
        for theta in self.thetas:
            self.failed |= ~theta.isfinite().all(dim=-1).all(dim=-1).all(dim=-1)
        self.poll()
        with self._evaluation():
            values = score(self.models, *self.part(part))
        for row in (values.isnan() & ~self.failed).nonzero()[:, 0].tolist():
            self.models.failures.setdefault(row, "its metric is not a number")
        return torch.where(self.failed, torch.nan, values).cpu().numpy().reshape(self.shape)

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        """A context in which the models have the weights to evaluate with."""
        found = self.optimizer.evaluated(self.thetas)
        trained = {i: self.thetas[i].clone() for i, weights in enumerate(found) if weights is not self.thetas[i]}
        self._put({i: found[i] for i in trained})
        try:
            yield
        finally:
            self._put(trained)

    def _put(self, weights: Mapping[int, Tensor]) -> None:
        """Gives some of the parameters these weights."""
        for i, theta in weights.items():
            self.thetas[i].copy_(theta)
        for view, theta in self._turned():
            view.copy_(theta)

    def failures(self) -> dict[Config, str]:
        """The first reason why each failed candidate failed."""
        found = dict[Config, str]()
        for row, reason in sorted(self.models.failures.items()):
            found.setdefault(self.configs[row // len(self.seeds)], reason)
        return found


def in_common(configs: Sequence[Config]) -> Collection[str]:
    """The components of the step that small chunks share, so that it is compiled once; empty where theirs are few.

    A sampler's proposals come in small batches, and nearly every batch has another set of components.
    """
    on = {name for c in configs for name in c.components}
    for names in (MODERN, tuple(registry)):
        if on.issubset(names) and 3 * len(on) >= 2 * len(names):
            # Those that are for some kinds of parameters only would be computed for all.
            return {name for name in names if not registry[name].kinds}
    return ()


def transposed_among(model: nn.Module, names: Iterable[str]) -> list[int]:
    """For each parameter that is a transposed convolution's kernel its number of groups; 0 for all others."""
    kernels, own = transposed(model.parameters(), model.modules()), dict(model.named_parameters())
    return [kernels.get(own[name], 0) for name in names]


def configs_among(
    model: nn.Module, names: Sequence[str], configs: Sequence[Config], steps: int, batch_size: int
) -> list[tuple[Config, ...]]:
    """For each parameter what every config is for it: of its kind, and scaled to this training, as `Config.build` does.

    Args:
        model: whose parameters they are.
        names: of the parameters.
        configs: of the candidates.
        steps, batch_size: of the training.
    """
    special = {c: by_parameter(model, c, steps, batch_size) for c in configs if c.is_by_kind or c.proxy}
    return [tuple(special[c][name] if c in special else c for c in configs) for name in names]


def in_chunks(configs: Sequence[Config], size: int) -> Iterator[list[int]]:
    """Yields the indices of each chunk's candidates, similar ones together: what a chunk has off costs nothing."""
    costly = [name for name, cls in registry.items() if cls.stage not in (Stage.RATE, Stage.DECAY)]
    costly.sort(key=lambda name: -len(registry[name].state))
    kinds = [tuple(name in c.components for name in costly) for c in configs]
    chunk: list[int] = []
    for k in sorted(range(len(configs)), key=lambda k: kinds[k]):
        if len(chunk) == size or (2 * len(chunk) >= size and kinds[k] != kinds[chunk[-1]]):
            yield chunk
            chunk = []
        chunk.append(k)
    if chunk:
        yield chunk

"""Rows that train together: which do, and how they advance by a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoranger.components.binding import kernel
from autoranger.components.component import Stage, registry
from autoranger.components.config import Config
from autoranger.components.groups import compute_dtype
from autoranger.components.rows import row_shape
from autoranger.components.step import Step
from autoranger.search.tasks.task import Split

if TYPE_CHECKING:
    from autoranger.search.population import Population


SCORED = 4
"""Batches that are scored at once, at most. What a transformer holds for many more no longer fits into a CPU's caches:
scoring the text task's takes three times as long with fifty."""


class Chunk:
    """Rows that train together: their parameters, buffers, optimizer state, and which of them have diverged.

    A row diverges when its loss or a parameter is not finite. It is then left as it is, and no other row notices.
    """

    def __init__(self, population: Population, configs: Sequence[Config], seeds: Sequence[int], steps: int) -> None:
        self.population, self.shape = population, (len(configs), len(seeds))
        self.rows = len(configs) * len(seeds)
        self.params, self.buffers = population.start(len(configs), seeds)
        self.thetas = [p.detach().view(self.rows, 1, *row_shape(p.shape[1:])) for p in self.params.values()]
        dtype, device = compute_dtype(self.thetas), population.device
        self.optimizer = Step([c for c in configs for _ in seeds], steps, dtype=dtype, device=device)
        for theta, p in zip(self.thetas, self.params.values(), strict=True):
            self.optimizer.add(theta, matrix=p.dim() > 2)
        self.kernel = kernel(self.optimizer, self.thetas, "auto")
        self.failed = torch.zeros(self.rows, dtype=torch.bool, device=device)
        self.alive: Tensor | None = None

    def advance(self, inputs: Tensor, targets: Tensor) -> None:
        """One step of every row, on the batches of the seeds `[S, B, ...]`."""
        population, params = self.population, list(self.params.values())
        population.skeleton.train()
        losses = population.apply(population.task.loss, self.params, self.buffers, inputs, targets)
        grads = torch.autograd.grad(losses.sum(), params)
        self.failed |= ~losses.detach().isfinite()
        flat = [g.reshape(t.shape).contiguous() for g, t in zip(grads, self.thetas, strict=True)]
        if self.kernel is not None:
            self.kernel(self.thetas, flat, self.alive)
        else:
            masks = None if self.alive is None else list(self.alive[..., None, None, None].unbind(1))
            self.optimizer(self.thetas, flat, masks)

    def poll(self) -> bool:
        """Freezes the rows that have diverged; whether any other is left. Waits for the device."""
        failed = int(self.failed.sum())
        if failed:
            alive = (~self.failed)[:, None].repeat(1, len(self.thetas))
            # In place from the second time on: what is captured in a CUDA graph reads it where it is.
            self.alive = alive if self.alive is None else self.alive.copy_(alive)
        return failed < self.rows

    @torch.no_grad()
    def score(self, split: Split) -> NDArray[np.float64]:
        """The metric on a split `[K, S]`; NaN where a row has diverged."""
        (inputs, targets), population = split, self.population
        population.skeleton.eval()
        for theta in self.thetas:
            self.failed |= ~theta.isfinite().all(dim=-1).all(dim=-1).all(dim=-1)
        fitting = population.bytes // (inputs[0].numel() * inputs.element_size() * self.rows)
        size = max(1, min(fitting, SCORED * population.task.batch_size))
        total = torch.zeros(self.rows, dtype=torch.float64, device=population.device)
        for x, y in zip(torch.split(inputs, size), torch.split(targets, size), strict=True):
            value = population.apply(population.task.metric, self.params, self.buffers, x[None], y[None])
            total += value.double() * len(x)
        means = torch.where(self.failed, torch.nan, total / len(inputs))
        return means.cpu().numpy().reshape(self.shape)


def alike(configs: Sequence[Config], size: int) -> Iterator[list[int]]:
    """Indices of the candidates of each chunk, alike ones together: what a chunk has off costs it nothing."""
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

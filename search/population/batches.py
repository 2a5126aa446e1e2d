"""The batches of a training. All candidates share them; each seed has its own order of examples and its own noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.private import tree_map
from autoranger.search.population.data import augmenting, fitted
from autoranger.search.tasks.task import Split, Task
from autoranger.search.tasks.words import about, reason
from autoranger.search.vectorization import batch_order, item


def batches(
    task: Task,
    data: Split,
    own: Sequence[Tensor],
    seeds: Sequence[int],
    steps: int,
    dtype: torch.dtype | None,
    seed_noise: Callable[[int], None],
    first: int = 0,
) -> Iterator[Split]:
    """Yields the batches `[S, B, ...]` of all seeds, once for each step from `first` on.

    Args:
        task: gives the batch size, `augment` and the device.
        data: the examples to draw from.
        own: for each seed the indices of those that are its own.
        seeds: S seeds of the order and the noise.
        steps: number of steps.
        dtype: type of the floating-point tensors that `augment` returns; see `fitted`.
        seed_noise: seeds the generators. It is called before each call of `augment`, and again before each step.
        first: the step to begin with.
    """
    inputs, targets = data
    orders = [mine[batch_order(len(mine), task.batch_size, steps, seed)] for mine, seed in zip(own, seeds, strict=True)]
    order = torch.stack(orders).to(task.device)
    augment = augmenting(task)
    for t in range(first, steps):
        batch = item(inputs, order[:, t])
        if augment is not None:
            changed = []
            for s, seed in enumerate(seeds):
                seed_noise(seed * 1_000_003 + t)  # the noise depends on seed and step, not on the company
                changed.append(fitted(augment(item(batch, s)), task.device, dtype))
            try:
                batch = tree_map(lambda *xs: torch.stack(xs), *changed)
            except (RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"{about(task)}: augment returns batches of different shapes ({reason(error)}); pad them."
                ) from error
        seed_noise(t)
        yield batch, item(targets, order[:, t])

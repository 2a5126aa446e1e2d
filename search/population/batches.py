"""The batches of a training: the same for all candidates, in an order and with noise that each seed has of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.private import tree_map
from autoranger.search.population.data import augmenting, fitted
from autoranger.search.tasks.task import Split, Task
from autoranger.search.tasks.words import named, reason
from autoranger.search.vectorization import batch_order, item, length


def batches(
    task: Task,
    data: Split,
    seeds: Sequence[int],
    steps: int,
    dtype: torch.dtype | None,
    seed_noise: Callable[[int], None],
) -> Iterator[Split]:
    """For each step the batches `[S, B, ...]` of the seeds.

    Args:
        task: whose batch size and `augment` they have, on its device.
        data: to draw them from.
        seeds: of the order and of the noise.
        steps: how many.
        dtype: of what `augment` returns, where that is floating point; see `fitted`.
        seed_noise: seeds the generators. It is called for the noise of each batch, and then for that of the step on it.
    """
    inputs, targets = data
    order = torch.stack([batch_order(length(inputs), task.batch_size, steps, seed) for seed in seeds]).to(task.device)
    augment = augmenting(task)
    for t in range(steps):
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
                    f"{named(task)}: augment returns batches of different shapes ({reason(error)}); pad them."
                ) from error
        seed_noise(t)
        yield batch, item(targets, order[:, t])

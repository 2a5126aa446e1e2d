"""One call for many rows (a row is one candidate with one seed), and the random numbers that rows have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.func import vmap

Tensors = dict[str, Tensor]
Call = Callable[[Tensors, Tensors, Tensor, Tensor], Tensor]
Vectorizer = Callable[[Call], Call]


def vectorized(call: Call) -> Call:
    """`call` for many rows at once; all draw the same random numbers.

    Row k·S + s, of candidate k and seed s, gets the batch of its seed: batches `[S, B, ...]` are shared by the
    candidates, not repeated for them, which lets the first layer be one matrix product.
    """

    def over_rows(params: Tensors, buffers: Tensors, inputs: Tensor, targets: Tensor) -> Tensor:
        seeds = len(inputs)
        if seeds == 1:
            return over_candidates(call)(params, buffers, inputs[0], targets[0])
        own, others = (
            {name: x.view(-1, seeds, *x.shape[1:]) for name, x in part.items()} for part in (params, buffers)
        )
        return over_candidates(vmap(call, randomness="same"))(own, others, inputs, targets).flatten()

    return over_rows


def over_candidates(call: Call) -> Call:
    """`call` for many candidates, on one batch."""
    return vmap(call, in_dims=(0, 0, None, None), randomness="same")


def looped(call: Call) -> Call:
    """As `vectorized`, row by row."""

    def over_rows(params: Tensors, buffers: Tensors, inputs: Tensor, targets: Tensor) -> Tensor:
        results = []
        for row in range(len(next(iter(params.values())))):
            seed = row % len(inputs)
            with forked(inputs.device):
                mine, others = ({name: value[row] for name, value in part.items()} for part in (params, buffers))
                results.append(call(mine, others, inputs[seed], targets[seed]))
        return torch.stack(results)

    return over_rows


def repeat(x: Tensor, times: int) -> Tensor:
    """The whole of `x` again and again along its first axis."""
    return x.repeat(times, *[1] * (x.dim() - 1))


def forked(device: torch.device) -> AbstractContextManager[None]:
    """What is drawn inside leaves the global generators alone, the CPU's and this device's, and no other is touched."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def reseed(device: torch.device, seed: int) -> None:
    """Seeds the global generators that work on a device may draw from, its own and the CPU's.

    `torch.manual_seed`, which is for all devices, would take as long as ten operations.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # before that there are no generators
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def batch_order(examples: int, batch_size: int, steps: int, seed: int) -> Tensor:
    """Indices `[steps, batch_size]` of the batches of one seed: shuffled epochs, one after another."""
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-steps * batch_size // examples)
    order = torch.cat([torch.randperm(examples, generator=generator) for _ in range(epochs)])
    return order[: steps * batch_size].view(steps, batch_size)

"""Calling a function for many rows (a row is one candidate with one seed), with random numbers that rows share."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from autoranger.components.core.private import tree_leaves, tree_map

Tensors = dict[str, Tensor]
Tree = Any
"""A tensor, or tuples and dictionaries of tensors."""

Call = Callable[[Tensors, Tensors, Tree, Tree], Tree]
Vectorizer = Callable[[Call], Call]


def vectorized(call: Call) -> Call:
    """`call` for many rows at once. All rows draw the same random numbers.

    Row k·S + s, of candidate k and seed s, gets the batch of its seed: batches `[S, B, ...]` are shared by the
    candidates, not repeated for them, which lets the first layer be one matrix product.
    """

    def over_rows(params: Tensors, buffers: Tensors, inputs: Tree, targets: Tree) -> Tensor:
        seeds = length(inputs)
        if seeds == 1:
            return over_candidates(call)(params, buffers, item(inputs, 0), item(targets, 0))  # type: ignore[no-any-return]
        own, others = by_seed(params, seeds), by_seed(buffers, seeds)
        of_seeds = over_candidates(vmap(call, randomness="same"))
        return of_seeds(own, others, inputs, targets).flatten()  # type: ignore[no-any-return]

    return over_rows


def seedwise(call: Call) -> Call:
    """Like `vectorized`, one seed after another, for calls whose shapes depend on the batch, as of masked losses."""

    def over_rows(params: Tensors, buffers: Tensors, inputs: Tree, targets: Tree) -> Tensor:
        seeds = length(inputs)
        own, others, results = by_seed(params, seeds), by_seed(buffers, seeds), []
        for s in range(seeds):
            mine, its = ({name: x[:, s] for name, x in part.items()} for part in (own, others))
            with forked(next(iter(params.values())).device):
                results.append(over_candidates(call)(mine, its, item(inputs, s), item(targets, s)))
        return torch.stack(results, dim=1).flatten()

    return over_rows


def over_candidates(call: Call) -> Call:
    """`call` for many candidates, on one batch."""
    return vmap(call, in_dims=(0, 0, None, None), randomness="same")


def by_seed(part: Tensors, seeds: int) -> Tensors:
    """Tensors `[K·S, ...]` of rows, reshaped to `[K, S, ...]`."""
    return {name: x.view(len(x) // seeds, seeds, *x.shape[1:]) for name, x in part.items()}


def length(tree: Tree) -> int:
    """The length of its tensors' first axis."""
    return len(tree if isinstance(tree, Tensor) else tree_leaves(tree)[0])


def item(tree: Tree, index: Any) -> Tree:
    """Each of its tensors at an index."""
    return tree[index] if isinstance(tree, Tensor) else tree_map(lambda x: x[index], tree)


def cloned(tree: Tree) -> Tree:
    """Copies of its tensors, for a model or a loss that may change them in place."""
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, tree)


def repeat(x: Tensor, times: int) -> Tensor:
    """`x` repeated along its first axis."""
    return x.repeat(times, *[1] * (x.dim() - 1))


@contextmanager
def forked(device: torch.device) -> Iterator[None]:
    """Restores the global generators at its end: NumPy's, Python's, and torch's for the CPU and this device."""
    numpys, pythons = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)


@contextmanager
def one_path() -> Iterator[None]:
    """Switches off the fast path of torch's transformers in eval mode, whose nested tensors vmap does not support."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


FALLBACK = "There is a performance drop because we have not yet implemented the batching rule for "
"""The beginning of what torch warns of an operation that vmap calls for one row after another."""


@contextmanager
def without_fallback_warnings() -> Iterator[None]:
    """Silences torch's warnings of operations that vmap calls for one row after another."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=FALLBACK)
        yield


def reseed(device: torch.device, seed: int) -> None:
    """Seeds the global generators that a task may draw from: torch's for the CPU and a device, NumPy's and Python's.

    `torch.manual_seed`, which is for all devices, would take as long as ten operations.
    """
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # before that there are no generators
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def drawn() -> tuple[Any, ...]:
    """The state of the host's global generators, to be compared before and after a call."""
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), name, np.asarray(keys).tobytes(), rest, random.getstate()


def batch_order(examples: int, batch_size: int, steps: int, seed: int) -> Tensor:
    """Indices `[steps, batch_size]` of one seed's batches: shuffled epochs, one after another."""
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-steps * batch_size // examples)
    order = torch.cat([torch.randperm(examples, generator=generator) for _ in range(epochs)])
    return order[: steps * batch_size].view(steps, batch_size)


def has_gpu() -> bool:
    """Whether there is a GPU, CUDA's or Apple's. Asked so, CUDA is not begun, and the process can still be forked."""
    return torch.cuda.device_count() > 0 or torch.backends.mps.is_available()


def on_gpu() -> bool:
    """Whether this process uses a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]

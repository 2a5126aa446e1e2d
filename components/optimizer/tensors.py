"""What a step asks of each of a user's tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.errors import ConfigError

SPARSE = "sparse gradients are not supported; make them dense, e.g. nn.Embedding(…, sparse=False)."


kind: Callable[[Tensor], Any] = attrgetter("dtype", "shape", "device")
"""What must not change about a parameter."""


def are_contiguous(xs: Collection[Tensor], dtype: torch.dtype) -> bool:
    """Whether `contiguous` would return each of these tensors itself."""
    if not {x.dtype for x in xs} <= {dtype} or not {x.layout for x in xs} <= {torch.strided}:
        return False
    return all(map(Tensor.is_contiguous, xs)) and not any(map(Tensor.is_neg, xs))


def contiguous(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor whose numbers lie in memory one after another as they are: itself, or a copy."""
    if x.layout is not torch.strided:
        raise ConfigError(SPARSE)
    if are_contiguous([x], dtype):
        return x
    return x.detach().to(dtype).resolve_neg().contiguous()


def gradient(p: Tensor, grad: Tensor | None) -> Tensor:
    """The gradient of a parameter, zeros where it has none (the step then leaves the parameter alone)."""
    if grad is None:
        return torch.zeros_like(p)
    if grad.layout != torch.strided:
        raise ConfigError(SPARSE)
    return grad


def addresses(tensors: list[Tensor]) -> list[int]:
    """Where the numbers of tensors are, as far as this can be said."""
    try:
        return [*map(Tensor.data_ptr, tensors)]
    except RuntimeError:  # of tensors that only wrap others
        return []


def share(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors begin at the same place in memory; False where nobody can say."""
    places = addresses([a, b])
    return any(places) and places[0] == places[1]

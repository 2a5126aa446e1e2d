"""What a step asks of each of a user's tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from autoranger.components.core.errors import ConfigError

SPARSE = "sparse gradients are not supported; make them dense, e.g. nn.Embedding(…, sparse=False)."


def kind(p: Tensor) -> tuple[torch.dtype, torch.Size, torch.device]:
    """What must not change about a parameter."""
    return p.dtype, p.shape, p.device


def plain(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor whose numbers lie in memory one after another as they are: itself, or a copy."""
    if x.layout is not torch.strided:
        raise ConfigError(SPARSE)
    if x.is_contiguous() and x.dtype == dtype and not x.is_neg():
        return x
    return x.detach().to(dtype).resolve_neg().contiguous()


def gradient(p: Tensor) -> Tensor:
    """The gradient of a parameter, zeros where it has none (the step then leaves the parameter alone)."""
    if p.grad is None:
        return torch.zeros_like(p)
    if p.grad.layout != torch.strided:
        raise ConfigError(SPARSE)
    return p.grad


def addresses(tensors: list[Tensor]) -> list[int]:
    """Where the numbers of tensors are, as far as this can be said."""
    try:
        return [*map(Tensor.data_ptr, tensors)]
    except RuntimeError:  # of tensors that only wrap others
        return []

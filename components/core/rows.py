"""The one place that knows parameter shapes: what a row is, and norms and means over rows and tensors.

The step lays every parameter out as `[K, B, R, C]`: K candidates, B tensors of equal shape, R rows of C numbers.
A *row* is one output unit: a kernel `[O, I, kh, kw]` is O rows of I·kh·kw, a matrix is its rows, a vector is one row.
A transposed convolution's kernel `[I, O/groups, kh, kw]` has them second, O rows of I/groups·kh·kw; see `transposed`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autoranger.components.core.private import is_intercepted


def row_shape(shape: torch.Size, conv_groups: int = 0) -> tuple[int, int]:
    """`(R, C)` of one parameter of this shape; a vector or a scalar is a single row.

    Args:
        shape: of the parameter.
        conv_groups: of the transposed convolution whose kernel it is, here and below; 0 for everything else.
    """
    if len(shape) < 2:
        return 1, math.prod(shape)
    rows = conv_groups * shape[1] if conv_groups else shape[0]
    return rows, math.prod(shape) // rows


def is_matrix(shape: torch.Size, conv_groups: int = 0) -> bool:
    """Whether a parameter has rows to speak of: more than one dimension, and more than one number in each row."""
    return len(shape) > 1 and row_shape(shape, conv_groups)[1] > 1


def by_rows(x: Tensor, conv_groups: int, lead: int = 0) -> Tensor:
    """A parameter, or its gradient, with one row after another, behind `lead` axes: `x` itself, or a view of it."""
    if not conv_groups:
        return x
    return x.view(*x.shape[:lead], conv_groups, -1, *x.shape[lead + 1 :]).transpose(lead + 1, lead + 2)


def from_rows(x: Tensor, shape: torch.Size, conv_groups: int) -> Tensor:
    """What is laid out in rows, viewed in the order and shape of its parameter.

    With several groups, rows cannot be viewed in that shape: groups and their inputs are two dimensions then.
    """
    if not conv_groups:
        return x.view(shape)
    turned = x.view(conv_groups, shape[1], -1, *shape[2:]).transpose(1, 2)
    return turned[0] if conv_groups == 1 else turned


def row_norm(x: Tensor) -> Tensor:
    """Euclidean norm of each row: `[K, B, R, C]` to `[K, B, R, 1]`."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm


def row_mean(x: Tensor) -> Tensor:
    """Mean of each row: `[K, B, R, C]` to `[K, B, R, 1]`."""
    return x.mean(dim=-1, keepdim=True)


def tensor_norm(x: Tensor) -> Tensor:
    """Euclidean norm of each tensor: `[K, B, R, C]` to `[K, B, 1, 1]`."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    return norm


def tensor_mean(x: Tensor) -> Tensor:
    """Mean of each tensor: `[K, B, R, C]` to `[K, B, 1, 1]`."""
    return x.mean(dim=(-2, -1), keepdim=True)


def tensor_std(x: Tensor) -> Tensor:
    """Standard deviation of each tensor, n − 1 in its denominator: `[K, B, R, C]` to `[K, B, 1, 1]`."""
    off = x - tensor_mean(x)
    return torch.sqrt(tensor_sum(off * off) / (tensor_size(x) - 1))


def tensor_sum(x: Tensor) -> Tensor:
    """Sum over each tensor: `[K, B, R, C]` to `[K, B, 1, 1]`."""
    return x.sum(dim=(-2, -1), keepdim=True)


def tensor_size(x: Tensor) -> Tensor:
    """How many numbers each tensor has: `[K, B, R, C]` to `[K, B, 1, 1]`. Components must not look at shapes."""
    return torch.ones_like(x).sum(dim=(-2, -1), keepdim=True)


def row_size(x: Tensor) -> Tensor:
    """How many numbers each row has: `[K, B, R, C]` to `[K, B, R, 1]`. Components must not look at shapes."""
    return torch.ones_like(x).sum(dim=-1, keepdim=True)


def choose(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`torch.where` for a condition on whole tensors, `[K, B, 1, 1]`; `a` or `b` itself where that needs no copy."""
    if can_look(condition):
        if condition.all():
            return a
        if not condition.any():
            return b
    return torch.where(condition, a, b)


def can_look(x: Tensor) -> bool:
    """Whether values may decide what is computed: on a CPU nobody waits for them. Not while the step is recorded."""
    return x.is_cpu and not torch.compiler.is_compiling() and not is_intercepted()

"""Operations on whole matrices, which are neither of elements nor of rows, such as products and decompositions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NAMESPACE = "autoranger"
"""Of the operations among torch's own."""

MatrixOperation = Callable[[Tensor], Tensor]
"""Makes new matrices `[..., R, C]` of others, each by itself."""


def on_matrices(function: MatrixOperation) -> MatrixOperation:
    """Makes an operation on matrices known to torch as one operation, which a component may call.

    It gets tensors `[K, B, R, C]` and computes all matrices at once. A component keeps the result among its state, in a
    buffer of its own: there a compiled step leaves what the operation is to work on, and finds what it has made. What
    comes before and after it is compiled as ever.

    >>> @on_matrices
    ... def squared_gram(x: Tensor) -> Tensor:
    ...     return x @ x.mT @ x
    >>> squared_gram(torch.eye(2)[None, None]).shape
    torch.Size([1, 1, 2, 2])
    """
    name = f"{NAMESPACE}::{function.__name__}"
    made = torch.library.custom_op(name, function, mutates_args=(), schema="(Tensor x) -> Tensor")
    made.register_fake(torch.empty_like)
    return made


def is_matrix_operation(func: object) -> bool:
    """Whether one of torch's operations was made by `on_matrices`."""
    return getattr(func, "namespace", "") == NAMESPACE


def operation(name: str) -> MatrixOperation:
    """The operation of this name."""
    found: MatrixOperation = getattr(getattr(torch.ops, NAMESPACE), name)
    return found

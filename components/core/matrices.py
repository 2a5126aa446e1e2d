"""Operations on whole matrices, which are neither of elements nor of rows, such as products and decompositions.

Some need memory that is not of their matrices' shape: a state tensor made by `between_rows` or `between_columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., object])

NAMESPACE = "autoranger"
"""Of the operations among torch's own."""

SMALL, LARGEST = 1024, 10_000
"""So many rows, or columns, always have a matrix between them, and so many at most: SOAP's authors' bound, too."""

LONGER = 16
"""Between the two they have one only if they are at most so many times as many as the other side has."""

MatrixOperation = Callable[[Tensor], Tensor]
"""Makes new matrices `[..., R, C]` of others, each by itself."""

OperationWithMemory = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], list[Tensor]]
"""Makes new matrices of others, and of what it remembers; see `with_memory`."""


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
    return registered(function, "(Tensor x) -> Tensor", torch.empty_like)


def with_memory(function: OperationWithMemory) -> OperationWithMemory:
    """`on_matrices` for an operation that changes state as well, of any shape, which nothing else reads or changes.

    It is called with the matrices `[K, B, R, C]`, with state of the same shape, with other state, and with scalars,
    which have to be signals or hyperparameters as they are. It returns a list of the new matrices and of all new state,
    none of them a tensor that it was given. A component keeps all of that, in this order, where it was.
    """

    def like(x: Tensor, alike: Sequence[Tensor], memory: Sequence[Tensor], numbers: Sequence[Tensor]) -> list[Tensor]:
        return [torch.empty_like(given) for given in (x, *alike, *memory)]

    schema = "(Tensor x, Tensor[] alike, Tensor[] memory, Tensor[] numbers) -> Tensor[]"
    return registered(function, schema, like)


def registered(function: F, schema: str, fake: Callable[..., object]) -> F:
    """An operation of torch that calls a function."""
    made = torch.library.custom_op(f"{NAMESPACE}::{function.__name__}", function, mutates_args=(), schema=schema)
    made.register_fake(fake)
    return made  # type: ignore[return-value]


def is_matrix_operation(func: object) -> bool:
    """Whether one of torch's operations was made by `on_matrices` or `with_memory`."""
    return getattr(func, "namespace", "") == NAMESPACE


def operation(name: str) -> Callable[..., Tensor | list[Tensor]]:
    """The operation of this name."""
    found: Callable[..., Tensor | list[Tensor]] = getattr(getattr(torch.ops, NAMESPACE), name)
    return found


def between_rows(x: Tensor) -> Tensor:
    """State for tensors `[K, B, R, C]` with a number for each two rows: `[K, B, R, R]`.

    Here and below it is empty, `[K, B, 0, 0]`, where there are too many rows, and for tensors that are no matrices.
    Processes that share a tensor all have the whole of it.
    """
    return square(x, x.shape[2], x.shape[3])


def between_columns(x: Tensor) -> Tensor:
    """State for tensors `[K, B, R, C]` with a number for each two columns: `[K, B, C, C]`."""
    return square(x, x.shape[3], x.shape[2])


def square(x: Tensor, size: int, other: int) -> Tensor:
    """Zeros `[K, B, size, size]`, or nothing where that is too much for what has another side of `other`."""
    size = size if size <= SMALL or size <= min(LARGEST, LONGER * other) else 0
    return x.new_zeros(*x.shape[:2], size, size)


def is_of_pairs(initial: Callable[[Tensor], Tensor]) -> bool:
    """Whether state that is made so has a shape of its own."""
    return initial in (between_rows, between_columns)

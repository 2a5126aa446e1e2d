"""Sums over rows and tensors that are cut between processes, for components that know nothing of it.

A component is called as always, with the local part of its tensors. Where it asks for a sum that nobody knows yet, the
call ends; when all stacks have asked, the sums are added up across processes in one go, and the calls are made again,
with the answers at hand. A component computes new signals from old ones, so being called twice does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.matrices import is_matrix_operation
from autoranger.components.core.shards import Group, Shards, add_up
from autoranger.components.core.stack import Stack

T = TypeVar("T")

ROW, TENSOR = (3,), (2, 3)
"""The dimensions that a sum may be over."""

NORM = "linalg_vector_norm"
REDUCTIONS = "sum", "mean", NORM
"""What is made of sums, by the names that torch has for it."""


def together(calls: Mapping[int, Callable[[], T]], stacks: Sequence[Stack]) -> dict[int, T]:
    """The results of calls, each for the tensors of the stack with its number."""
    known: dict[int, list[Tensor]] = {i: [] for i in calls}
    results: dict[int, T] = {}
    while len(results) < len(calls):
        asked: dict[int, UnknownSumError] = {}
        for i in [i for i in calls if i not in results]:
            shards = stacks[i].shards
            if shards is None:
                results[i] = calls[i]()
                continue
            try:
                with Answers(shards, stacks[i].shape, known[i]):
                    results[i] = calls[i]()
            except UnknownSumError as error:
                asked[i] = error
        sums = add_up([a.part for a in asked.values()], [a.groups for a in asked.values()])
        for (i, unknown), total in zip(asked.items(), sums, strict=True):
            known[i].append(total if unknown.pieces is None else total.index_select(2, unknown.pieces))
    return {i: results[i] for i in calls}


class UnknownSumError(Exception):
    """A sum of which only the local part is known."""

    def __init__(self, part: Tensor, groups: Sequence[Group], pieces: Tensor | None) -> None:
        super().__init__()
        self.part, self.groups, self.pieces = part, groups, pieces


class Answers(TorchFunctionMode):
    """Gives sums over rows and tensors their value across processes; `UnknownSumError` where nobody knows it yet.

    Args:
        shards: how the tensors of a stack are spread.
        shape: of the stack.
        known: the sums, in the order in which they are asked for.
    """

    def __init__(self, shards: Shards, shape: torch.Size, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.shards, self.shape, self.known, self._asked = shards, shape[2:], known, 0
        self._ones: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name in REDUCTIONS and args[0].shape[2:] == self.shape:
            order = (*args[1:2], kwargs.get("ord", 2))[0] if name == NORM else 2
            over = dimensions(args[2 if name == NORM else 1 :], kwargs)
            if over in (ROW, TENSOR) and order == 2:
                return self._reduce(name, args[0], over)
        if is_matrix_operation(func):
            return self.shards.on_whole(func, *args)
        result = func(*args, **kwargs)
        if name == "ones_like":
            self._ones.append(result)
        if isinstance(result, Tensor) and any(self._is_lost(x, result) for x in args):
            raise ConfigError(
                f"a component computes {name} of a tensor that is cut between processes; use the functions of "
                "autoranger.components.core.rows, or leave this parameter whole."
            )
        return result

    def _is_lost(self, x: object, result: Tensor) -> bool:
        """Whether rows, or columns where these are cut, have become one."""
        if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[2:].numel() < 2:
            return False
        rows, columns = result.shape[2:] if result.dim() == 4 else (1, 1)
        return rows < x.shape[2] == self.shape[0] or (
            self.shards.are_rows_cut and columns < x.shape[3] == self.shape[1]
        )

    def _reduce(self, name: str, x: Tensor, over: tuple[int, ...]) -> Tensor:
        count = self.shards.rows[1] if over == ROW else math.prod(self.shards.rows)
        if any(x is ones for ones in self._ones):
            return torch.full_like(x.sum(dim=over, keepdim=True), 1 if name == "mean" else count)
        total = self._total(lambda: (x * x if name == NORM else x).sum(dim=over, keepdim=True), over)
        return total / count if name == "mean" else total.sqrt() if name == NORM else total

    def _total(self, add: Callable[[], Tensor], over: tuple[int, ...]) -> Tensor:
        """A sum over all processes, of which the local part is at hand."""
        groups, pieces = self.shards.groups, None
        if over == ROW:
            groups, pieces = self.shards.row_groups, self.shards.pieces
        if not groups and pieces is None:
            return add()
        if self._asked == len(self.known):
            part = add()
            if pieces is not None:
                shape = *part.shape[:2], self.shards.rows[0], 1
                part = part.new_zeros(shape).index_add_(2, pieces, part)
            raise UnknownSumError(part, groups, pieces)
        self._asked += 1
        return self.known[self._asked - 1]


def dimensions(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """The dimensions that a reduction is over and keeps; none where it does not keep them."""
    dims, keep = kwargs.get("dim", args[0] if args else None), kwargs.get("keepdim", args[1] if args[1:] else False)
    return tuple(sorted(d % 4 for d in ([dims] if isinstance(dims, int) else dims or ()))) if keep else ()

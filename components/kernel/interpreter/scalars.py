"""The scalars of a schedule: what a step computes once for a tensor, not for its rows or elements.

They are Python's numbers where there is one of them, which is ten times as fast as with torch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autoranger.components.kernel.interpreter.generated import function, named
from autoranger.components.kernel.recording.printer import COMMON
from autoranger.components.kernel.recording.program import Level, Node, Operand
from autoranger.components.kernel.recording.schedule import Schedule

Scalar = Any
"""A number or truth value, or a tensor with one for each candidate and tensor, `[K or 1, B or 1, 1, 1]`."""

Read = Callable[[int], Scalar]
"""What gives an input, or a sum, by its slot."""

OWN = ("updates", "rows", "columns")
"""Inputs in which tensors of a parameter group differ."""


class Scalars:
    """The scalars of a schedule, as functions that fill in a list of values.

    Args:
        schedule: of the passes.

    Attributes:
        slots: where in the list a scalar or a constant is.
        beginning: the list, with constants only.
        reads: by their slots, the scalars that are not made of others.
        common: fills in what all tensors of a parameter group have in common.
        passes: for each pass what fills in the rest of what it needs.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.slots: dict[Operand, int] = {}
        self.beginning: list[Scalar] = []
        self.reads: dict[int, Node] = {}
        common, own, names = list[str](), set[Node](), named(OPERATIONS)
        self.passes: list[Callable[[list[Scalar], Read], None]] = []
        for number, this in enumerate(schedule.passes):
            lines: list[str] = []
            for node in schedule.needed(this.roots, number):
                if node.level == Level.SCALAR and node not in self.slots:
                    if node.op in ("tensor_sum", "total") or node.name in OWN or own.intersection(node.operands):
                        own.add(node)
                    (lines if node in own else common).append(self._print(node))
            self.passes.append(function("v, read", lines, names))
        self.common: Callable[[list[Scalar], Read], None] = function("v, read", common, names)

    def _print(self, node: Node) -> str:
        if node.op in ("input", "tensor_sum", "total"):
            slot = self._slot(node)
            self.reads[slot] = node
            return f"v[{slot}] = read({slot})"
        args = [f"v[{self._slot(a)}]" for a in node.args]
        template = COMMON[node.op] if node.op not in OPERATIONS else f"do_{node.op}({', '.join(['{}'] * len(args))})"
        return f"v[{self._slot(node)}] = {template.format(*args)}"

    def _slot(self, value: Operand) -> int:
        if value not in self.slots:
            self.slots[value] = len(self.beginning)
            self.beginning.append(None if isinstance(value, Node) else value)
        return self.slots[value]


def bare(x: Tensor) -> Scalar:
    """A tensor of numbers or truth values, as one of Python's where it holds only one."""
    return x.item() if x.numel() == 1 else x if x.dtype == torch.bool else x.double()


def choose(condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """`a` where a condition holds, else `b`."""
    if not isinstance(condition, Tensor):
        return a if condition else b
    numbers = (torch.tensor(x, dtype=torch.float64, device="cpu") if type(x) is float else x for x in (a, b))
    return torch.where(condition, *numbers)


def quick(python: Callable[..., float], torchs: Callable[..., Tensor]) -> Callable[..., Scalar]:
    """An operation as Python has it, and as torch has it for tensors and where Python would raise: 1/0 is infinite."""

    def operation(*args: Scalar) -> Scalar:
        if Tensor not in map(type, args):
            try:
                return python(*args)
            except (ArithmeticError, ValueError):
                pass
        return bare(torchs(*(torch.as_tensor(a, dtype=torch.float64, device="cpu") for a in args)))

    return operation


def ordered(pick: Callable[[float, float], float]) -> Callable[[float, float], float]:
    """The larger or smaller of two numbers; ValueError where one is not a number."""

    def operation(a: float, b: float) -> float:
        if a != a or b != b:
            raise ValueError
        return pick(a, b)

    return operation


OPERATIONS: dict[str, Callable[..., Scalar]] = {
    **{name: quick(getattr(math, name), getattr(torch, name)) for name in ("sqrt", "exp", "expm1", "log", "log1p")},
    **{name: quick(getattr(math, name), getattr(torch, name)) for name in ("cos", "sin", "tanh", "pow", "floor")},
    "abs": abs,
    "sign": lambda x: bare(torch.sign(torch.as_tensor(x, dtype=torch.float64, device="cpu"))),
    "maximum": quick(ordered(max), torch.maximum),
    "minimum": quick(ordered(min), torch.minimum),
    "lerp": quick(lambda a, b, w: a + w * (b - a) if abs(w) < 0.5 else b - (b - a) * (1 - w), torch.lerp),
    "div": quick(operator.truediv, torch.div),
    "rsqrt": quick(lambda x: 1 / math.sqrt(x), torch.rsqrt),
    "remainder": quick(operator.mod, torch.remainder),
    "not": lambda x: ~x if isinstance(x, Tensor) else not x,
    "select": choose,
    "number": lambda x: x.double() if isinstance(x, Tensor) else float(x),
}
"""Operations on scalars that are written as calls; `COMMON` has the others."""

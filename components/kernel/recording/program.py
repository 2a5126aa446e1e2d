"""What a step computes for one tensor, as a graph of a few operations on elements, rows and scalars."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from autoranger.components.kernel.errors import UntraceableError


class Level(enum.IntEnum):
    """What a value has one of: a tensor, each of its rows, or each of its elements."""

    SCALAR = 0
    ROW = 1
    ELEMENT = 2


@dataclass(frozen=True, eq=False)
class Node:
    """One value. Its identity is what it is: a program never holds two nodes that compute the same.

    Args:
        op: "input", or an operation of `printer.Language`; of the sums `row_sum` gives a row's, `tensor_sum` (of
            rows) a tensor's, `complete` that of all processes, and `total` that of all tensors. "matrix" is an
            operation on whole matrices, which somebody else performs between two passes.
        args: operands; plain numbers are constants.
        level: what there is one of.
        name: of an input, or of an operation on matrices.
        alike, memory: the names of the state that an operation on matrices changes besides; see `with_memory`. Its
            arguments are then the matrices and scalars.
    """

    op: str
    args: tuple[Operand, ...]
    level: Level
    name: str = ""
    alike: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()

    @property
    def operands(self) -> Iterator[Node]:
        """The arguments that are nodes."""
        return (a for a in self.args if isinstance(a, Node))


Operand = Node | float
"""What an operation takes: the result of another one, or a constant."""

TRUTHS = ("gt", "ge", "lt", "le", "eq", "ne", "and", "or", "not")
"""Operations whose result is a truth value."""

LOGICAL = ("and", "or", "not")
"""Operations on truth values."""


def is_truth(value: Operand) -> bool:
    """Whether a value is a truth value, or a choice between some."""
    if not isinstance(value, Node):
        return False
    if value.op == "select":
        return all(map(is_truth, value.args[1:]))
    return value.op in TRUTHS or value.name.endswith(" switch")


def walk(roots: Iterable[Node], operands: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """The roots and all values that they are computed from, each once and after its operands."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in order:
            for operand in operands(node):
                visit(operand)
            order[node] = None

    for root in roots:
        visit(root)
    return list(order)


@dataclass(eq=False)
class Program:
    """Inputs, what is stored into them in the end, and the values in between.

    Args:
        stores: the new value of each input that changes.
        inputs: by name.
        totals: the sums over all tensors, in the order of the step, whether this kind of tensor needs them or not.
        are_rows_cut, is_cut: whether a row, or a tensor, is spread over processes.
    """

    stores: dict[Node, Operand] = field(default_factory=dict)
    inputs: dict[str, Node] = field(default_factory=dict)
    totals: list[Node] = field(default_factory=list)
    are_rows_cut: bool = False
    is_cut: bool = False
    _known: dict[object, Node] = field(default_factory=dict)

    @property
    def nodes(self) -> list[Node]:
        """All values that are needed, operands first."""
        values = (v for v in (*self.stores.values(), *self.totals) if isinstance(v, Node))
        return walk(values, lambda node: node.operands)

    def input(self, name: str, level: Level) -> Node:
        """The input of this name."""
        return self.inputs.setdefault(name, Node("input", (), level, name))

    def make(self, op: str, *args: Operand) -> Operand:
        """The value of an operation on elements, rows or scalars; `row_sum` and `tensor_sum` lower the level."""
        levels = [a.level for a in args if isinstance(a, Node)]
        if not levels:
            raise UntraceableError(f"{op} of constants")
        truths = list(map(is_truth, args))
        if op in LOGICAL and not all(truths):
            raise UntraceableError(f"{op} of numbers")
        if op not in (*TRUTHS, "select", "number") and all(truths):
            raise UntraceableError(f"{op} of truth values")
        level = {"row_sum": Level.ROW, "tensor_sum": Level.SCALAR}.get(op, max(levels))
        key = (op, args)
        if key not in self._known:
            self._known[key] = Node(op, args, level)
        return self._known[key]

    def complete(self, part: Operand) -> Operand:
        """A sum over a row or a tensor, added up over processes where these have parts of it."""
        is_row = isinstance(part, Node) and part.level == Level.ROW
        return self.make("complete", part) if (self.are_rows_cut if is_row else self.is_cut) else part

    def total(self, part: Operand) -> Node:
        """The sum over all tensors of what `part` is for this one."""
        node = Node("total", (part,), Level.SCALAR, str(len(self.totals)))
        self.totals.append(node)
        return node

    def matrix(
        self,
        name: str,
        x: Operand,
        alike: Sequence[Operand] = (),
        memory: Sequence[Operand] = (),
        numbers: Sequence[Operand] = (),
    ) -> Node:
        """What an operation on matrices makes of an element's value; see `core.matrices`."""
        if not isinstance(x, Node) or x.level != Level.ELEMENT:
            raise UntraceableError(f"{name} of a value that is no matrix")
        if not all(isinstance(value, Node) and value.op == "input" for value in (*alike, *memory, *numbers)):
            raise UntraceableError(f"{name} with numbers or state that somebody has computed with")
        names = [tuple(value.name for value in of if isinstance(value, Node)) for of in (alike, memory)]
        key = "matrix", name, x, *alike, *memory, *numbers
        return self._known.setdefault(key, Node("matrix", (x, *numbers), Level.ELEMENT, name, *names))

    def fill(self, value: float, like: Operand) -> Operand:
        """A constant of the level of another value."""
        if not isinstance(like, Node) or like.level == Level.SCALAR:
            return value
        return self._known.setdefault(("fill", value, like.level), Node("fill", (value,), like.level))

    def signature(self) -> str:
        """The whole program as text, in which two programs that compute the same in the same way agree."""
        names: dict[Node, str] = {}
        lines: list[str] = []

        def name(node: Operand) -> str:
            if not isinstance(node, Node):
                return repr(node)
            if node not in names:
                args = ", ".join([name(a) for a in node.args])
                names[node] = f"%{len(names)}"
                remembered = ", ".join((*node.alike, *node.memory))
                lines.append(f"{names[node]} = {node.op} {node.name}({args}) {remembered}")
            return names[node]

        stores = [f"{target.name} <- {name(value)}" for target, value in self.stores.items()]
        totals = [f"total {name(total)}" for total in self.totals]
        return "\n".join([*lines, *stores, *totals])

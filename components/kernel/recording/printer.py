"""Prints the passes of a schedule as source code.

A `Printer` decides what is computed when, and in which loop. A `Language` writes that down: `cpp.source` in C++,
`triton.source` in Triton.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoranger.components.kernel.recording.program import Level, Node, Operand, is_truth, walk
from autoranger.components.kernel.recording.schedule import Pass, Schedule

MOST_BRANCHES = 2
"""For how many conditions a loop is written twice: with what they skip, and without loading it."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a compiled step, in order.

    Args:
        scalars: names of the inputs of which each candidate, or each parameter group, has one.
        states: names of the state tensors.
        slots: how many numbers are kept for each row between passes.
        totals: how many sums each tensor adds a part to.
    """

    scalars: tuple[str, ...]
    states: tuple[str, ...]
    slots: int
    totals: int


def arguments_of(schedules: Mapping[int, Schedule]) -> Arguments:
    """The arguments that the passes need, of matrices and of vectors together."""
    inputs = {name: node for schedule in schedules.values() for name, node in schedule.program.inputs.items()}
    states = tuple(name for name in inputs if name.startswith("state "))
    own = {"theta", "grad", "updates", "rows", "columns", "steps", *states}
    read = {node.name for schedule in schedules.values() for node in schedule.program.nodes}
    return Arguments(
        scalars=tuple(name for name in inputs if name not in own and name in read),
        states=states,
        slots=max(len(s.kept) for s in schedules.values()),
        totals=max(len(s.shared) for s in schedules.values()),
    )


COMMON = {
    "add": "({} + {})",
    "sub": "({} - {})",
    "mul": "({} * {})",
    "div": "({} / {})",
    "gt": "({} > {})",
    "ge": "({} >= {})",
    "lt": "({} < {})",
    "le": "({} <= {})",
    "eq": "({} == {})",
    "ne": "({} != {})",
    "and": "({} & {})",
    "or": "({} | {})",
    "neg": "(-{})",
    "fill": "{}",
}
"""Operations that every language writes in the same way."""


class Language(ABC):
    """How a target language writes what a `Printer` asks for.

    Values have names. So do pointers to a row's elements in a tensor, and the numbers that are kept for each row.
    Templates are filled by `str.format`.

    Attributes:
        operations: a template for each operation of a program.
        inputs: expressions for the inputs of which each tensor has one.
        scalar: a template for reading a scalar, by its index.
        sum_of: for reading the sum, over a tensor's rows, of the numbers kept in a slot.
        total_of: for reading a sum over all tensors, by its number.
        load: for reading an element through a pointer.
        kept: for reading a number that was kept for the row.
        store: for writing an element through a pointer.
        keep: for keeping a number for the row.
        declare: for giving a value a name.
        begin_sum: for beginning a sum that the next loop adds to.
        part: for storing a tensor's part of a sum over all tensors, by its number.
        own_part: for reading that part again, after other processes have added theirs.
    """

    operations: Mapping[str, str]
    inputs: Mapping[str, str]
    scalar: str
    sum_of: str
    total_of: str
    load: str
    kept: str
    store: str
    keep: str
    declare: str
    begin_sum: str
    part: str
    own_part: str = ""

    def write(self, name: str, pointer: str, value: str) -> str:
        """Stores an element through a pointer into the tensor of this name."""
        return self.store.format(pointer=pointer, value=value)

    @abstractmethod
    def constant(self, value: float) -> str:
        """A number, written as a literal."""

    @abstractmethod
    def function(self, name: str, body: Sequence[str]) -> list[str]:
        """A function that runs one pass over some rows of one tensor."""

    @abstractmethod
    def rows(
        self, body: Sequence[str], places: Mapping[str, str], kept: Mapping[str, int], summed: Mapping[str, str]
    ) -> list[str]:
        """A loop over rows.

        Args:
            body: what is done for each row.
            places: the tensor that each pointer points into, by the pointer's name.
            kept: the slot of each number that is kept for the row, by its name.
            summed: the row's value, by name, of those kept numbers that this loop computes and whose sum over the
                tensor is needed later.
        """

    @abstractmethod
    def columns(self, body: Sequence[str], sums: Mapping[str, str]) -> list[str]:
        """A loop over the elements of a row. `sums` has the element to add up for each sum, by the sum's name."""

    @abstractmethod
    def branch(self, condition: str, yes: Sequence[str], no: Sequence[str]) -> list[str]:
        """A choice between two blocks."""


class Printer:
    """Writes the passes of one schedule. Value number 3 is called `v3`, and a pointer to it `p3`.

    Args:
        schedule: of the passes.
        arguments: of the compiled step.
        language: to write in.
    """

    def __init__(self, schedule: Schedule, arguments: Arguments, language: Language) -> None:
        self.schedule, self.arguments, self.language = schedule, arguments, language
        self._numbers: dict[Node, int] = {}

    def print_pass(self, name: str, number: int) -> list[str]:
        """One pass as a function."""
        this, kept, language = self.schedule.passes[number], self.schedule.kept, self.language
        needed = self.schedule.needed(this.roots, number)
        lines = [self._declare(n, number) for n in needed if n.level == Level.SCALAR]
        for total, part in this.parts.items():
            index = self.schedule.shared.index(total)
            lines.append(language.part.format(total=index, value=self._value(part)))
        if this.stores or this.kept:
            places = dict.fromkeys([*(p for n in needed if (p := self._place(n, number))), *this.stores])
            body = self._print_row(this, needed, number)
            body += [language.keep.format(name=self._kept(n), value=self._value(n)) for n in this.kept]
            lines += language.rows(
                body,
                places={self._pointer(place): place.name for place in places},
                kept={self._kept(n): kept.index(n) for n in [*needed, *this.kept] if n in kept},
                summed={self._kept(n): self._value(n) for n in this.kept if n in self.schedule.summed},
            )
        return language.function(name, lines)

    def _print_row(self, this: Pass, needed: Sequence[Node], number: int) -> list[str]:
        """The stages of one row. Each computes the row's values that are known by then, and loops over its elements."""
        own = [s for sums in this.sums.values() for s in sums]
        rows = [n for n in needed if n.level == Level.ROW and n not in own]
        lines = []
        for stage in range(this.last + 2):
            lines += [self._declare(n, number) for n in rows if self.schedule.stage(n, number) == stage]
            sums, stores = this.sums.get(stage, []), this.stores if stage == this.last else {}
            lines += [self.language.begin_sum.format(self._value(s)) for s in sums if self.language.begin_sum]
            lines += self._print_loops(sums, stores, number, {})
        return lines

    def _print_loops(
        self, sums: Sequence[Node], stores: Mapping[Node, Operand], number: int, known: dict[Node, bool]
    ) -> list[str]:
        """A loop over the elements of a row; one for each outcome of the conditions that let a tensor skip work."""
        changed = {t: v for t, value in stores.items() if (v := self.schedule.settle(value, number, known)) is not t}
        elements = self._elements([*(a for s in sums for a in s.args), *changed.values()], number, known)
        choices = [n for n in elements if n.op == "select" and not self.schedule.is_at_hand(n, number)]
        conditions = [n.args[0] for n in choices if skips(n.args[0])]
        if conditions and len(known) < MOST_BRANCHES:
            condition = conditions[0]
            assert isinstance(condition, Node)
            yes, no = (self._print_loops(sums, stores, number, known | {condition: x}) for x in (True, False))
            return self.language.branch(self._value(condition), yes, no)
        body = [self._declare(n, number, known) for n in elements]
        body += [self.language.write(t.name, self._pointer(t), self._value(v)) for t, v in changed.items()]
        added = {self._value(s): self._value(self.schedule.settle(s.args[0], number, known)) for s in sums}
        return self.language.columns(body, added) if body or added else []

    def _elements(self, roots: Iterable[Operand], number: int, known: Mapping[Node, bool]) -> list[Node]:
        """The values that a loop computes for each element, operands first, where some conditions are known."""

        def settled(values: Iterable[Operand]) -> Iterator[Node]:
            nodes = (self.schedule.settle(value, number, known) for value in values)
            return (n for n in nodes if isinstance(n, Node) and n.level == Level.ELEMENT)

        return walk(settled(roots), lambda node: settled(self.schedule.operands_of(node, number)))

    def _place(self, node: Node, number: int) -> Node | None:
        """The input from which to load an element's value; None where it is computed."""
        if node.level != Level.ELEMENT:
            return None
        return self.schedule.stored(node, number) or (node if node.op == "input" else None)

    def _declare(self, node: Node, number: int, known: Mapping[Node, bool] | None = None) -> str:
        expression = self._expression(node, number, known or {})
        return self.language.declare.format(name=self._value(node), expression=expression)

    def _expression(self, node: Node, number: int, known: Mapping[Node, bool]) -> str:
        language = self.language
        if place := self._place(node, number):
            return truth(node, language.load.format(self._pointer(place)))
        if self.schedule.is_kept(node, number):
            return truth(node, language.kept.format(self._kept(node)))
        if node.op == "input":
            if node.name in language.inputs:
                return language.inputs[node.name]
            return truth(node, language.scalar.format(self.arguments.scalars.index(node.name)))
        if node.op == "tensor_sum":
            return language.sum_of.format(self.schedule.kept.index(node.args[0]))  # type: ignore[arg-type]
        if node.op == "complete":
            return language.own_part.format(self.schedule.shared.index(node))
        if node.op == "total":
            return language.total_of.format(node.name)
        args = (self.schedule.settle(a, number, known) for a in node.args)
        return language.operations[node.op].format(*map(self._value, args))

    def _number(self, node: Node) -> int:
        return self._numbers.setdefault(node, len(self._numbers))

    def _value(self, value: Operand) -> str:
        return f"v{self._number(value)}" if isinstance(value, Node) else self.language.constant(value)

    def _pointer(self, place: Node) -> str:
        return f"p{self._number(place)}"

    def _kept(self, node: Node) -> str:
        return f"kept{self._number(node)}"


def print_passes(
    schedules: Mapping[int, Schedule], arguments: Arguments, languages: Mapping[int, Language]
) -> tuple[list[str], dict[int, list[list[str]]]]:
    """All passes as functions, and the names of those for each kind of tensor, by sweep."""
    lines, names = list[str](), dict[int, list[list[str]]]()
    for kind, schedule in schedules.items():
        printer = Printer(schedule, arguments, languages[kind])
        names[kind] = [[f"pass_{int(kind)}_{number}" for number in sweep] for sweep in schedule.sweeps]
        for number, name in enumerate(n for sweep in names[kind] for n in sweep):
            lines += printer.print_pass(name, number)
    return lines, names


def truth(node: Node, number: str) -> str:
    """A number read back as the truth value that it was when it was stored."""
    return f"({number} != 0)" if is_truth(node) else number


def skips(condition: Operand) -> bool:
    """Whether a condition lets a tensor skip work in some steps: that is so if it depends on the count of updates."""
    if not isinstance(condition, Node) or condition.level != Level.SCALAR:
        return False
    return condition.name == "updates" or any(map(skips, condition.operands))


def indent(lines: Iterable[str]) -> list[str]:
    """These lines as a block within another one."""
    return [f"    {line}" for line in lines]

"""Printing the passes of a schedule, in whatever language: what is computed when, and in which loop.

What to say is the `Printer`'s business, how to say it the `Language`'s: C++ in `cpp.source`, Triton in `triton.source`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoranger.components.kernel.recording.program import Level, Node, Operand, is_truth, walk
from autoranger.components.kernel.recording.schedule import Pass, Schedule

MOST_BRANCHES = 2
"""Conditions for which a loop is written twice, so that a tensor does not load what it skips."""


@dataclass(frozen=True)
class Arguments:
    """The order of what the caller passes to a compiled step.

    Args:
        scalars: names of the inputs that a candidate or a parameter group has one of.
        states: names of the state tensors.
        slots: how many numbers are kept for each row.
        totals: how many sums have parts of tensors.
    """

    scalars: tuple[str, ...]
    states: tuple[str, ...]
    slots: int
    totals: int


def arguments_of(schedules: Mapping[int, Schedule]) -> Arguments:
    """What the passes of all kinds of tensors need."""
    inputs = [name for schedule in schedules.values() for name in schedule.program.inputs]
    states = tuple(dict.fromkeys(name for name in inputs if name.startswith("state ")))
    own = {"theta", "grad", "updates", "rows", "columns", "steps", *states}
    return Arguments(
        scalars=tuple(dict.fromkeys(name for name in inputs if name not in own)),
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
"""Operations that all languages write alike."""


class Language(ABC):
    """How a target language says what a printer has to say.

    A value has a name; so has the pointer to where a tensor has its elements of the row, and each number that is kept
    for every row. The templates are filled by `str.format`.

    Attributes:
        operations: a template for each operation of a program.
        inputs: the inputs that a tensor has one of, as numbers.
        scalar: a template for the scalar of an index; `sum_of` for the sum over a tensor of what is kept in a slot;
            `total_of` for that over all tensors of a number.
        load: a template for the element that a pointer leads to; `kept` for a row's number.
        store: a template for storing a value through a pointer; `keep` for keeping a row's value by a name.
        declare: a template for giving a value a name; `begin_sum` for a sum that a loop is going to make.
        part: a template for noting a tensor's value as its part of the sum over all tensors of a number.
        own_part: a template for the part itself, after others have added to it; where sums may cross processes.
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

    @abstractmethod
    def constant(self, value: float) -> str:
        """A number."""

    @abstractmethod
    def function(self, name: str, body: Sequence[str]) -> list[str]:
        """One pass over the rows that it is given of one tensor."""

    @abstractmethod
    def rows(
        self, body: Sequence[str], places: Mapping[str, str], kept: Mapping[str, int], summed: Mapping[str, str]
    ) -> list[str]:
        """A loop over rows.

        Args:
            body: what is done for each row.
            places: names of pointers, and of the tensors that they lead into.
            kept: names of numbers that are kept for every row, and their slots.
            summed: the names among those whose sum over the tensor is going to be wanted, and the row's value, where
                it is this loop that makes them.
        """

    @abstractmethod
    def columns(self, body: Sequence[str], sums: Mapping[str, str]) -> list[str]:
        """A loop over the elements of a row; `sums` are the sums to make by name, and the elements to add up."""

    @abstractmethod
    def branch(self, condition: str, yes: Sequence[str], no: Sequence[str]) -> list[str]:
        """A choice between two blocks."""


class Printer:
    """Writes the passes of one schedule. A value's name is v with its number, that of a pointer to it p.

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
        """The stages of one row: what is known of the row by then, and a loop over its elements."""
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
        """A loop over the elements of a row; one for each outcome of conditions that let a tensor skip work."""
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
        body += [self.language.store.format(pointer=self._pointer(t), value=self._value(v)) for t, v in changed.items()]
        added = {self._value(s): self._value(self.schedule.settle(s.args[0], number, known)) for s in sums}
        return self.language.columns(body, added) if body or added else []

    def _elements(self, roots: Iterable[Operand], number: int, known: Mapping[Node, bool]) -> list[Node]:
        """The values that a loop deals with for each element, ingredients first, where some conditions are known."""

        def settled(values: Iterable[Operand]) -> Iterator[Node]:
            nodes = (self.schedule.settle(value, number, known) for value in values)
            return (n for n in nodes if isinstance(n, Node) and n.level == Level.ELEMENT)

        return walk(settled(roots), lambda node: settled(self.schedule.ingredients(node, number)))

    def _place(self, node: Node, number: int) -> Node | None:
        """The input to load an element's value from, where it is not computed."""
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
    """All passes as functions, and for each kind of tensor the names of its passes, by sweep."""
    lines, names = list[str](), dict[int, list[list[str]]]()
    for matrix, schedule in schedules.items():
        printer = Printer(schedule, arguments, languages[matrix])
        names[matrix] = [[f"pass_{int(matrix)}_{number}" for number in sweep] for sweep in schedule.sweeps]
        for number, name in enumerate(n for sweep in names[matrix] for n in sweep):
            lines += printer.print_pass(name, number)
    return lines, names


def truth(node: Node, number: str) -> str:
    """What has been stored as a number, as the truth value that it was."""
    return f"({number} != 0)" if is_truth(node) else number


def skips(condition: Operand) -> bool:
    """Whether a condition may let a tensor skip work for a while: one on the count of its updates."""
    if not isinstance(condition, Node) or condition.level != Level.SCALAR:
        return False
    return condition.name == "updates" or any(map(skips, condition.operands))


def indent(lines: Iterable[str]) -> list[str]:
    """A block within another."""
    return [f"    {line}" for line in lines]

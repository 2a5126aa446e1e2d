"""Printing a schedule as C++: one function that takes all tensors of all candidates one step further."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autoranger.components.kernel.program import Level, Node, UntraceableError, walk
from autoranger.components.kernel.schedule import Pass, Schedule

FRAME = (Path(__file__).parent / "frame.h").read_text(encoding="utf-8")
"""What does not depend on the components: helpers, the arguments, who does which rows."""

STORAGE = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "_Float16",
}
"""Types that parameters can have."""

ARGUMENTS = "const Call& call, const Tensor& u, int64_t k, int64_t j, int64_t begin, int64_t end"
"""Of a pass, as in frame.h."""

MOST_BRANCHES = 2
"""Conditions for which a loop is written twice, so that what a tensor skips costs it nothing."""

OPERATIONS = {
    "add": "({} + {})",
    "sub": "({} - {})",
    "mul": "({} * {})",
    "div": "({} / {})",
    "neg": "(-{})",
    "gt": "({} > {})",
    "ge": "({} >= {})",
    "lt": "({} < {})",
    "le": "({} <= {})",
    "eq": "({} == {})",
    "ne": "({} != {})",
    "and": "({} & {})",
    "or": "({} | {})",
    "not": "(!{})",
    "select": "({} ? {} : {})",
    **{name: f"std::{name}({{}})" for name in ("sqrt", "exp", "expm1", "log", "log1p", "cos", "sin", "tanh", "abs")},
    "floor": "std::floor({})",
    "pow": "std::pow({}, {})",
    "rsqrt": "(1 / std::sqrt({}))",
    "sign": "sign({})",
    "maximum": "maximum({}, {})",
    "minimum": "minimum({}, {})",
    "remainder": "remainder({}, {})",
    "lerp": "lerp({}, {}, {})",
    "fill": "{}",
    "number": "Number({})",
}
"""How an operation is written."""


@dataclass(frozen=True)
class Layout:
    """The order of what the caller passes to a compiled step.

    Args:
        scalars: names of the inputs that a candidate or a parameter group has one of.
        states: names of the state tensors.
        slots: how many numbers are kept for each row.
        totals: how many sums over all tensors there are.
    """

    scalars: tuple[str, ...]
    states: tuple[str, ...]
    slots: int
    totals: int


def print_step(schedules: Mapping[bool, Schedule], dtype: torch.dtype, compute: torch.dtype) -> tuple[str, Layout]:
    """The source, and how to call it.

    Args:
        schedules: for tensors of more than one dimension (True), and for others.
        dtype: of parameters, gradients and state.
        compute: in which to compute.

    Raises:
        UntraceableError: where the two kinds cannot go through the same sweeps.
    """
    inputs = [name for schedule in schedules.values() for name in schedule.program.inputs]
    states = tuple(dict.fromkeys(name for name in inputs if name.startswith("state ")))
    own = {"theta", "grad", "updates", "rows", "columns", *states}
    layout = Layout(
        scalars=tuple(dict.fromkeys(name for name in inputs if name not in own)),
        states=states,
        slots=max(len(s.kept) for s in schedules.values()),
        totals=max(len(s.program.totals) for s in schedules.values()),
    )
    if len({tuple(s.sweep(t) for t in s.program.totals) for s in schedules.values()}) > 1:
        raise UntraceableError("sums over all tensors become known at different times for different kinds of tensors")
    types = [
        f"using Storage = {STORAGE[dtype]};",
        f"using Number = {STORAGE[compute]};",
        f"constexpr int STATES = {max(1, len(states))};",
    ]
    source, names = FRAME.replace("// TYPES", "\n".join(types)), {}
    for matrix, schedule in schedules.items():
        printer = Printer(schedule, layout)
        names[matrix] = [[f"pass_{int(matrix)}_{number}" for number in sweep] for sweep in schedule.sweeps]
        for number, name in enumerate(n for sweep in names[matrix] for n in sweep):
            source += printer.print_pass(name, number)
    return source + print_table(names), layout


def print_table(names: Mapping[bool, list[list[str]]]) -> str:
    """The passes of each kind of tensor, by sweep, and the function to call."""
    sweeps = max(map(len, names.values()))
    passes = max(len(sweep) for kind in names.values() for sweep in kind)
    kinds = []
    for matrix in (False, True):
        rows = [*names.get(matrix, []), *[[]] * sweeps][:sweeps]
        kinds.append(braces(braces([*row, *["nullptr"] * passes][:passes]) for row in rows))
    return (
        f"static const Pass passes[2][{sweeps}][{passes}] = {braces(kinds)};\n"
        'extern "C" void step(const Call* call) { drive(passes, *call); }\n'
    )


def braces(items: Iterable[str]) -> str:
    """An initializer list."""
    return "{" + ", ".join(items) + "}"


class Printer:
    """Writes the passes of one schedule. A value's name is v with its number, that of a pointer to it p.

    Args:
        schedule: of the passes.
        layout: of the arguments.
    """

    def __init__(self, schedule: Schedule, layout: Layout) -> None:
        self.schedule, self.layout = schedule, layout
        self._numbers: dict[Node, int] = {}

    def print_pass(self, name: str, number: int) -> str:
        """One pass as a function."""
        this, kept = self.schedule.passes[number], self.schedule.kept
        needed = self.schedule.needed([*this.stores.values(), *this.kept, *this.parts.values()], number)
        lines = [f"static void {name}({ARGUMENTS}) {{"]
        lines += [self._declare(n, number) for n in needed if n.level == Level.SCALAR]
        for total, part in this.parts.items():
            lines.append(f"if (begin == 0) call.parts_of({total.name}, k)[j] = {self._value(part)};")
        if this.stores or this.kept:
            for n in dict.fromkeys(n for n in [*needed, *this.kept] if n in kept):
                lines.append(f"Number* const kept{self._number(n)} = call.rows_of({kept.index(n)}, k, u);")
            places = dict.fromkeys([*(p for n in needed if (p := self._place(n, number))), *this.stores])
            lines.append("for (int64_t r = begin; r < end; ++r) {")
            lines.append("const int64_t at = k * u.stride + r * u.columns;")
            lines += [f"Storage* const __restrict {self._pointer(p)} = {self._field(p)} + at;" for p in places]
            lines += self._print_row(this, needed, number)
            lines += [f"kept{self._number(n)}[r] = {self._value(n)};" for n in this.kept]
            lines.append("}")
        return "\n".join([*lines, "}", ""])

    def _print_row(self, this: Pass, needed: Sequence[Node], number: int) -> list[str]:
        """The stages of one row: what is known of the row by then, and a loop over its elements."""
        own = [s for sums in this.sums.values() for s in sums]
        rows = [n for n in needed if n.level == Level.ROW and n not in own]
        lines = []
        for stage in range(this.last + 2):
            lines += [self._declare(n, number) for n in rows if self.schedule.stage(n, number) == stage]
            sums, stores = this.sums.get(stage, []), this.stores if stage == this.last else {}
            lines += [f"Number {self._value(s)} = 0;" for s in sums]
            lines += self._print_loops(sums, stores, number, {})
        return lines

    def _print_loops(
        self, sums: Sequence[Node], stores: Mapping[Node, Node | float], number: int, known: dict[Node, bool]
    ) -> list[str]:
        """A loop over the elements of a row; one for each outcome of conditions that let a tensor skip work."""
        changed = {t: v for t, value in stores.items() if (v := settle(value, known)) is not t}
        elements = self._elements([*(a for s in sums for a in s.args), *changed.values()], number, known)
        conditions = [n.args[0] for n in elements if n.op == "select" and skips(n.args[0])]
        if conditions and len(known) < MOST_BRANCHES:
            condition = conditions[0]
            assert isinstance(condition, Node)
            yes, no = (self._print_loops(sums, stores, number, known | {condition: x}) for x in (True, False))
            return [f"if ({self._value(condition)}) {{", *yes, "} else {", *no, "}"]
        body = [self._declare(n, number, known) for n in elements]
        body += [f"store({self._pointer(t)}[c], {self._value(v)});" for t, v in changed.items()]
        if not sums:
            return ["#pragma omp simd", "for (int64_t c = 0; c < u.columns; ++c) {", *body, "}"] if body else []
        partial = {f"sum{self._number(s)}": s for s in sums}
        body += [f"{name} += {self._value(settle(s.args[0], known))};" for name, s in partial.items()]
        return [
            "for (int64_t from = 0; from < u.columns; from += BLOCK) {",
            "const int64_t to = u.columns < from + BLOCK ? u.columns : from + BLOCK;",
            *(f"Number {name} = 0;" for name in partial),
            f"#pragma omp simd reduction(+ : {', '.join(partial)})",
            *("for (int64_t c = from; c < to; ++c) {", *body, "}"),
            *(f"{self._value(s)} += {name};" for name, s in partial.items()),
            "}",
        ]

    def _elements(self, roots: Iterable[Node | float], number: int, known: Mapping[Node, bool]) -> list[Node]:
        """The values that a loop deals with for each element, ingredients first, where some conditions are known."""

        def settled(values: Iterable[Node | float]) -> Iterator[Node]:
            nodes = (settle(value, known) for value in values)
            return (n for n in nodes if isinstance(n, Node) and n.level == Level.ELEMENT)

        return walk(settled(roots), lambda node: settled(self.schedule.ingredients(node, number)))

    def _place(self, node: Node, number: int) -> Node | None:
        """The input to load an element's value from, where it is not computed."""
        if node.level != Level.ELEMENT:
            return None
        return self.schedule.stored(node, number) or (node if node.op == "input" else None)

    def _declare(self, node: Node, number: int, known: Mapping[Node, bool] | None = None) -> str:
        return f"const auto {self._value(node)} = {self._expression(node, number, known or {})};"

    def _expression(self, node: Node, number: int, known: Mapping[Node, bool]) -> str:
        if place := self._place(node, number):
            return f"load({self._pointer(place)}[c])"
        if self.schedule.is_kept(node, number):
            return f"kept{self._number(node)}[r]"
        if node.op == "input":
            fixed = {"updates": "u.count[k * u.count_stride]", "rows": "u.rows", "columns": "u.columns"}
            if node.name in fixed:
                return f"Number({fixed[node.name]})"
            scalar = f"call.scalar({self.layout.scalars.index(node.name)}, k, u.group)"
            return f"({scalar} != 0)" if node.name.endswith(" switch") else scalar
        if node.op == "tensor_sum":
            return f"call.sum_of({self.schedule.kept.index(node.args[0])}, k, u)"  # type: ignore[arg-type]
        if node.op == "total":
            return f"call.total_of({node.name}, k)"
        return OPERATIONS[node.op].format(*(self._value(settle(a, known)) for a in node.args))

    def _number(self, node: Node) -> int:
        return self._numbers.setdefault(node, len(self._numbers))

    def _value(self, value: Node | float) -> str:
        if isinstance(value, Node):
            return f"v{self._number(value)}"
        if math.isfinite(value):
            return f"Number({float(value)!r})"
        name = "quiet_NaN" if math.isnan(value) else "infinity"
        return f"({'-' if value < 0 else ''}std::numeric_limits<Number>::{name}())"

    def _pointer(self, place: Node) -> str:
        return f"p{self._number(place)}"

    def _field(self, place: Node) -> str:
        known = self.layout.states
        return f"u.states[{known.index(place.name)}]" if place.name in known else f"u.{place.name}"


def settle(value: Node | float, known: Mapping[Node, bool]) -> Node | float:
    """What a value is where conditions are known: a branch of a choice."""
    while isinstance(value, Node) and value.op == "select" and (condition := value.args[0]) in known:
        value = value.args[1] if known[condition] else value.args[2]  # type: ignore[index]
    return value


def skips(condition: Node | float) -> bool:
    """Whether a condition may let a tensor skip work for a while: one on the count of its updates."""
    if not isinstance(condition, Node) or condition.level != Level.SCALAR:
        return False
    return condition.name == "updates" or any(map(skips, condition.operands))

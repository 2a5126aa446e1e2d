"""Printing a schedule as C++: one function that takes all tensors of all candidates one step further."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from autoranger.components.core.rounding import salt_of
from autoranger.components.kernel.recording.inputs import STATE
from autoranger.components.kernel.recording.printer import (
    COMMON,
    Arguments,
    Language,
    arguments_of,
    indent,
    print_passes,
)
from autoranger.components.kernel.recording.schedule import Schedule

RUNTIME = (Path(__file__).parent / "runtime.h").read_text(encoding="utf-8")
"""What does not depend on the components: helpers, the arguments, who does which rows."""

STORAGE = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "_Float16",
}
"""Types that parameters can have."""

ARGUMENTS = "const Call& call, const Tensor& u, int64_t k, int64_t j, int64_t begin, int64_t end"
"""Of a pass, as in runtime.h."""


class Cpp(Language):
    """C++, in the words of runtime.h.

    Args:
        arguments: of the compiled step.
        short: the states that are bfloat16.
    """

    operations = {
        **COMMON,
        "not": "(!{})",
        "select": "({} ? {} : {})",
        **{
            name: f"std::{name}({{}})" for name in ("sqrt", "exp", "expm1", "log", "log1p", "cos", "sin", "tanh", "abs")
        },
        "floor": "std::floor({})",
        "pow": "std::pow({}, {})",
        "rsqrt": "(1 / std::sqrt({}))",
        "sign": "sign({})",
        "maximum": "maximum({}, {})",
        "minimum": "minimum({}, {})",
        "remainder": "floor_remainder({}, {})",
        "lerp": "lerp({}, {}, {})",
        "number": "Number({})",
    }
    inputs = {
        "updates": "Number(u.count[k * u.count_stride])",
        "rows": "Number(u.whole_rows)",
        "columns": "Number(u.whole_columns)",
        "steps": "Number(*call.steps)",
    }
    scalar = "call.scalar({}, k, u.group)"
    sum_of = "call.sum_of({}, k, u)"
    total_of = "call.total_of({}, k)"
    load = "load({}[c])"
    kept = "{}[r]"
    store = "store({pointer}[c], {value});"
    keep = "{name}[r] = {value};"
    declare = "const auto {name} = {expression};"
    begin_sum = "Number {} = 0;"
    own_part = "call.parts_of({}, k)[j]"
    part = "if (begin == 0) call.parts_of({total}, k)[j] = {value};"

    def __init__(self, arguments: Arguments, short: Container[str] = ()) -> None:
        self.arguments, self.short = arguments, short

    def write(self, name: str, pointer: str, value: str) -> str:
        if name not in self.short:
            return super().write(name, pointer, value)
        return f"store({pointer}[c], {value}, noise(r * u.columns + c, seed_{pointer}));"

    def constant(self, value: float) -> str:
        if math.isfinite(value):
            return f"Number({float(value)!r})"
        name = "quiet_NaN" if math.isnan(value) else "infinity"
        return f"({'-' if value < 0 else ''}std::numeric_limits<Number>::{name}())"

    def function(self, name: str, body: Sequence[str]) -> list[str]:
        return [f"static void {name}({ARGUMENTS}) {{", *indent(body), "}"]

    def rows(
        self, body: Sequence[str], places: Mapping[str, str], kept: Mapping[str, int], summed: Mapping[str, str]
    ) -> list[str]:
        # Sums over a tensor are made of what is kept for its rows, by whoever wants them: `sum_of`.
        pointers = [
            f"{kind}* const __restrict {pointer} = static_cast<{kind}*>({self._field(name)}) + at;"
            for pointer, name in places.items()
            for kind in (self._type(name),)
        ]
        seeds = [
            f"const uint32_t seed_{pointer} = seed(u.count[k * u.count_stride], {salt_of(name.removeprefix(STATE))}u);"
            for pointer, name in places.items()
            if name in self.short
        ]
        return [
            *(f"Number* const {name} = call.rows_of({slot}, k, u);" for name, slot in kept.items()),
            *seeds,
            "for (int64_t r = begin; r < end; ++r) {",
            *indent(["const int64_t at = k * u.stride + r * u.columns;", *pointers, *body]),
            "}",
        ]

    def columns(self, body: Sequence[str], sums: Mapping[str, str]) -> list[str]:
        if not sums:
            return ["#pragma omp simd", "for (int64_t c = 0; c < u.columns; ++c) {", *indent(body), "}"]
        partial = {f"sum_{name}": element for name, element in sums.items()}
        block = [
            "const int64_t to = u.columns < from + BLOCK ? u.columns : from + BLOCK;",
            *(f"Number {name} = 0;" for name in partial),
            f"#pragma omp simd reduction(+ : {', '.join(partial)})",
            "for (int64_t c = from; c < to; ++c) {",
            *indent([*body, *(f"{name} += {element};" for name, element in partial.items())]),
            "}",
            *(f"{name} += sum_{name};" for name in sums),
        ]
        return ["for (int64_t from = 0; from < u.columns; from += BLOCK) {", *indent(block), "}"]

    def branch(self, condition: str, yes: Sequence[str], no: Sequence[str]) -> list[str]:
        return [f"if ({condition}) {{", *indent(yes), "} else {", *indent(no), "}"]

    def _type(self, name: str) -> str:
        """Of the numbers of a tensor."""
        if name in self.short:
            return STORAGE[torch.bfloat16]
        return "Number" if name in self.arguments.states else "Storage"

    def _field(self, name: str) -> str:
        known = self.arguments.states
        return f"u.states[{known.index(name)}]" if name in known else f"u.{name}"


def print_step(
    schedules: Mapping[int, Schedule], dtype: torch.dtype, compute: torch.dtype, short: Sequence[str] = ()
) -> tuple[str, Arguments]:
    """The source, and how to call it.

    Args:
        schedules: for each kind of tensor; see `Recording`.
        dtype: of parameters and gradients.
        compute: in which to compute, and of the state.
        short: the states that are bfloat16 instead.

    Raises:
        UntraceableError: where the two kinds cannot go through the same sweeps.
    """
    arguments = arguments_of(schedules)
    types = [
        f"using Storage = {STORAGE[dtype]};",
        f"using Number = {STORAGE[compute]};",
        f"constexpr int STATES = {max(1, len(arguments.states))};",
    ]
    passes, names = print_passes(schedules, arguments, dict.fromkeys(schedules, Cpp(arguments, short)))
    return "\n".join([RUNTIME.replace("// TYPES", "\n".join(types)), *passes, print_table(names)]), arguments


def print_table(names: Mapping[int, list[list[str]]]) -> str:
    """The passes of each kind of tensor, by sweep, and the function to call."""
    sweeps = max(map(len, names.values()))
    passes = max(len(sweep) for kind in names.values() for sweep in kind)
    kinds = []
    for kind in range(max(names) + 1):
        rows = [*names.get(kind, []), *[[]] * sweeps][:sweeps]
        kinds.append(braces(braces([*row, *["nullptr"] * passes][:passes]) for row in rows))
    return (
        f"static const Pass passes[{len(kinds)}][{sweeps}][{passes}] = {braces(kinds)};\n"
        'extern "C" void step(const Call* call) { drive(passes, *call); }\n'
    )


def braces(items: Iterable[str]) -> str:
    """An initializer list."""
    return "{" + ", ".join(items) + "}"

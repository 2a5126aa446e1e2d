"""Whether a recorded step needs nothing but what is in this process."""

from __future__ import annotations

from collections.abc import Mapping

from autoranger.components.core.shards import Shards
from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.program import Program
from autoranger.components.kernel.recording.schedule import Schedule


def require_local(step: Step, schedules: Mapping[int, Schedule]) -> None:
    """UntraceableError where a step needs sums that cross processes, for which its passes do not wait."""
    if any(crosses(schedules[stack.whole_kind].program, stack.shards) for stack in step.stacks if stack.shards):
        raise UntraceableError("it sums over tensors that are cut between processes")


def crosses(program: Program, shards: Shards) -> bool:
    """Whether a program needs sums of rows or tensors that are cut."""
    nodes = program.nodes
    rows = any(a.op == "row_sum" and n.op != "tensor_sum" for n in nodes for a in n.operands)
    tensors = any(n.op == "tensor_sum" or n.name in ("rows", "columns") for n in nodes)
    return (rows and shards.are_rows_cut) or (tensors and bool(shards.groups))

"""From a step to the passes for each kind of tensor."""

from __future__ import annotations

from functools import lru_cache

import torch

from autoranger.components.core.shards import Shards
from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.known import record
from autoranger.components.kernel.recording.program import Node, Program, walk
from autoranger.components.kernel.recording.schedule import Schedule


def schedules(
    step: Step, dtype: torch.dtype, *, rates: bool = False, rounded: bool | None = None
) -> dict[bool, Schedule]:
    """The passes of a step for each kind of tensor that it has.

    Args:
        step: with all its stacks.
        dtype: of parameters and gradients.
        rates: see `record`.
        rounded: whether what is stored is rounded; where `dtype` says so if None.

    Raises:
        UntraceableError: where it cannot be recorded, or where the kinds cannot go through the same sweeps.
    """
    rounded = dtype != step.dtype if rounded is None else rounded
    found = {
        matrix: planned(record(step, matrix, dtype, rates), rounded)
        for matrix in sorted({stack.matrix for stack in step.stacks})
    }
    if len({tuple(s.sweep(t) for t in s.program.totals) for s in found.values()}) > 1:
        raise UntraceableError("sums over all tensors become known at different times for different kinds of tensors")
    if any(crosses(found[stack.matrix].program, stack.shards) for stack in step.stacks if stack.shards):
        raise UntraceableError("it sums over tensors that are cut between processes")
    if step.partners is not None:
        raise UntraceableError("it sums over tensors that belong to other processes")
    return found


def crosses(program: Program, shards: Shards) -> bool:
    """Whether a program needs sums of rows or tensors that are cut."""
    values = (v for v in (*program.stores.values(), *program.totals) if isinstance(v, Node))
    nodes = walk(values, lambda node: node.operands)
    rows = any(a.op == "row_sum" and n.op != "tensor_sum" for n in nodes for a in n.operands)
    tensors = any(n.op == "tensor_sum" or n.name in ("rows", "columns") for n in nodes)
    return (rows and shards.are_rows_cut) or (tensors and bool(shards.groups))


@lru_cache(maxsize=64)
def planned(program: Program, rounded: bool) -> Schedule:
    """The schedule of a program."""
    return Schedule(program, rounded=rounded)

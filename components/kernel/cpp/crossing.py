"""Completing sums that cross processes, between the sweeps of a compiled step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from autoranger.components.core.private import copy_each
from autoranger.components.core.shards import Group, add_up
from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.program import Level
from autoranger.components.kernel.recording.schedule import Schedule


@dataclass
class Sum:
    """A sum over a row or a tensor, of which this process has a part.

    Args:
        tensor: its number, in the order of the step.
        part: where the passes leave what they find.
        whole: where they look for the sum over all processes.
        groups: the processes that have the rest.
        pieces, rows: which of how many rows each number is of, where it is of a piece of one.
    """

    tensor: int
    part: Tensor
    whole: Tensor
    groups: tuple[Group, ...]
    pieces: Tensor | None = None
    rows: int = 0


class Sweep:
    """The sums that one sweep begins, for the next one.

    Args:
        sums: of all tensors.
    """

    def __init__(self, sums: Sequence[Sum]) -> None:
        self.sums = sums

    def __call__(self, grads: Sequence[int]) -> None:
        """Completes those of the tensors that have a gradient, in one collective for each group of processes."""
        sums = [s for s in self.sums if grads[s.tensor]]
        parts = [s.part if s.pieces is None else s.part.new_zeros(s.rows).index_add_(0, s.pieces, s.part) for s in sums]
        found = add_up(parts, [s.groups for s in sums])
        wholes = [x if s.pieces is None else x.index_select(0, s.pieces) for s, x in zip(sums, found, strict=True)]
        if sums:
            copy_each([s.whole for s in sums], wholes)


def crossing(step: Step, schedules: Mapping[int, Schedule], kept: Tensor, parts: Tensor) -> list[Sweep] | None:
    """For each sweep what has to be completed after it; None where nothing crosses processes."""
    sweeps: list[list[Sum]] = [[] for _ in range(max(len(s.sweeps) for s in schedules.values()))]
    tensors = sum(stack.shape[1] for stack in step.stacks)
    rows = sum(stack.shape[1] * stack.shape[2] for stack in step.stacks)
    tensor = first_row = 0
    for stack in step.stacks:
        schedule, shards = schedules[stack.kind], stack.shards
        starts = {sweep[0]: i for i, sweep in enumerate(schedule.sweeps)}
        for _ in range(stack.shape[1]):
            for node in (n for n in (*schedule.kept, *schedule.crossing) if n.op == "complete"):
                assert shards
                before = sweeps[starts[schedule.time(node)[0]] - 1]
                if node.level == Level.ROW:
                    of_tensor = kept.view(-1, rows)[:, first_row : first_row + stack.shape[2]]
                    part, whole = (of_tensor[schedule.kept.index(n)] for n in (*node.operands, node))
                    before.append(Sum(tensor, part, whole, shards.row_groups, shards.pieces, shards.rows[0]))
                else:
                    part = parts.view(-1, tensors)[schedule.shared.index(node), tensor : tensor + 1]
                    before.append(Sum(tensor, part, part, shards.groups))
            tensor, first_row = tensor + 1, first_row + stack.shape[2]
    if step.lr.shape[0] > 1 and any(sweeps):
        raise UntraceableError("it sums over tensors of several candidates that are cut between processes")
    return [Sweep(sums) for sums in sweeps] if any(sweeps) else None

"""Operations on whole matrices, between the sweeps of a recorded step: torch performs them, in the state's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoranger.components.core.matrices import MatrixOperation, operation
from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.inputs import STATE
from autoranger.components.kernel.recording.schedule import Schedule


@dataclass(frozen=True)
class Work:
    """What one operation does for one stack.

    Args:
        stack: its number.
        matrices: `[K, B, R, C]`, where a pass has left what the next one finds changed.
        operation: what changes them.
    """

    stack: int
    matrices: Tensor
    operation: MatrixOperation

    def __call__(self, active: Tensor | None) -> None:
        """Changes all matrices, or those of a mask that broadcasts to `[K, B, 1, 1]`."""
        changed = self.operation(self.matrices)
        self.matrices.copy_(changed if active is None else torch.where(active, changed, self.matrices))


def work_between(step: Step, schedules: Mapping[int, Schedule], *, across: bool) -> list[list[Work]]:
    """For each sweep the operations on matrices that have to be performed after it.

    Args:
        step: with all its stacks.
        schedules, across: see `Recording`.

    Raises:
        UntraceableError: where the state has another type than what is computed in.
    """
    found: list[list[Work]] = [[] for _ in range(max((len(s.sweeps) for s in schedules.values()), default=0))]
    for i, stack in enumerate(step.stacks):
        schedule, held = schedules[stack.kind if across else stack.whole_kind], stack.named_state()
        for target, value in schedule.matrices:
            matrices = held[target.name.removeprefix(STATE)]
            if matrices.dtype != step.dtype:
                raise UntraceableError("operations on matrices would work on rounded ones")
            found[schedule.sweep(value) - 1].append(Work(i, matrices, operation(value.name)))
    return found

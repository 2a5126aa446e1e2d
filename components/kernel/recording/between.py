"""Operations on whole matrices, between the sweeps of a recorded step: torch performs them, in the state's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoranger.components.core.matrices import operation
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.inputs import STATE
from autoranger.components.kernel.recording.program import Node
from autoranger.components.kernel.recording.recording import Recording


@dataclass(frozen=True)
class Work:
    """What one operation does for one stack.

    Args:
        stack: its number.
        matrices: `[K, B, R, C]`, where a pass has left what the next one finds changed.
        operation: what changes them.
        alike, memory, numbers: what it is given besides; see `with_memory`. The state among it changes, too.
    """

    stack: int
    matrices: Tensor
    operation: Callable[..., Tensor | list[Tensor]]
    alike: Sequence[Tensor] = ()
    memory: Sequence[Tensor] = ()
    numbers: Sequence[Tensor] = ()

    def __call__(self, active: Tensor | None) -> None:
        """Changes all matrices, or those of a mask that broadcasts to `[K, B, 1, 1]`."""
        held = self.matrices, *self.alike, *self.memory
        if self.numbers:
            numbers = [x.to(self.matrices.dtype) for x in self.numbers]
            changed = [*self.operation(self.matrices, [*self.alike], [*self.memory], numbers)]
        else:
            changed = [self.operation(self.matrices)]
        for target, new in zip(held, changed, strict=True):
            target.copy_(new if active is None else torch.where(active, new, target))


def work_between(recording: Recording, *, across: bool) -> list[list[Work]]:
    """For each sweep the operations on matrices that have to be performed after it.

    Args:
        recording: of a step with all its stacks.
        across: see `Recording`.

    Raises:
        UntraceableError: where the state has another type than what is computed in.
    """
    step, schedules = recording.step, recording.schedules
    found: list[list[Work]] = [[] for _ in range(max((len(s.sweeps) for s in schedules.values()), default=0))]
    for i, stack in enumerate(step.stacks):
        schedule, held = schedules[stack.kind if across else stack.whole_kind], stack.named_state()
        for target, value in schedule.matrices:
            matrices, *alike = (held[name.removeprefix(STATE)] for name in (target.name, *value.alike))
            if any(x.dtype != step.dtype for x in (matrices, *alike)):
                raise UntraceableError("operations on matrices would work on rounded ones")
            memory = [held[name.removeprefix(STATE)] for name in value.memory]
            names = [node.name for node in value.args[1:] if isinstance(node, Node)]
            numbers = [stack.count if n == "updates" else recording.scalar(n, stack.group) for n in names]
            work = Work(i, matrices, operation(value.name), alike, memory, numbers)
            found[schedule.sweep(value) - 1].append(work)
    return found

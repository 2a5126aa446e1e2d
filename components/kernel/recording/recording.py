"""A step as recorded: the passes for each kind of tensor, and the scalars that they read."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from autoranger.components.core.signals import SCALARS
from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.inputs import SIGNAL, scalar_inputs
from autoranger.components.kernel.recording.local import require_local
from autoranger.components.kernel.recording.program import Program
from autoranger.components.kernel.recording.programs import program_of
from autoranger.components.kernel.recording.schedule import Schedule


class Recording:
    """The recording of a step.

    The rate stage is part of it where its components can be recorded. Where they cannot, torch computes what comes out
    of that stage before each step: `compute_signals`.

    Args:
        step: with all its stacks.
        dtype: of parameters and gradients.
        rounded: whether what is stored is rounded, which by default `dtype` tells.
        across: whether who runs the passes completes sums that cross processes.

    Attributes:
        schedules: the passes for each kind of tensor that the step has, `Stack.kind` where they go across processes;
            else `Stack.whole_kind`.
        scalars: the buffers that the passes read, by the names of their inputs.

    Raises:
        UntraceableError: where the step cannot be recorded.
    """

    def __init__(self, step: Step, dtype: torch.dtype, *, rounded: bool | None = None, across: bool = False) -> None:
        self.step = step
        rounded = {dtype, step.state_dtype or step.dtype} != {step.dtype} if rounded is None else rounded
        try:
            self.schedules = schedules(step, dtype, rounded, True, across)
            self.scalars, self._signals = scalar_inputs(step, rates=True), dict[str, Tensor]()
        except UntraceableError:
            self.schedules = schedules(step, dtype, rounded, False, across)
            self._signals = {name: torch.empty_like(step.lr) for name in SCALARS}
            self.scalars = scalar_inputs(step, rates=False) | {SIGNAL + name: x for name, x in self._signals.items()}
        if step.partners is not None:
            raise UntraceableError("it sums over tensors that belong to other processes")
        if not across:
            require_local(step, self.schedules)
        if self.has_matrices and any(stack.shards and stack.shards.groups for stack in step.stacks):
            raise UntraceableError("it has operations on matrices that are cut between processes")

    @property
    def has_matrices(self) -> bool:
        """Whether there are operations on matrices to perform between sweeps; see `between`."""
        return any(schedule.matrices for schedule in self.schedules.values())

    def scalar(self, name: str, group: int) -> Tensor:
        """What a parameter group reads as the input of this name."""
        x = self.scalars[name]
        return x[:, group : group + 1] if name.startswith(("step: ", SIGNAL)) else x

    def compute_signals(self) -> None:
        """Computes what comes out of the rate stage where that is not recorded, once a step has been counted."""
        if self._signals:
            now = self.step.scalars()
            for name, signal in self._signals.items():
                signal.copy_(getattr(now, name))


def schedules(step: Step, dtype: torch.dtype, rounded: bool, rates: bool, across: bool) -> dict[int, Schedule]:
    """The passes for each kind of tensor; UntraceableError where the kinds cannot go through the same sweeps."""
    kinds = sorted({stack.kind if across else stack.whole_kind for stack in step.stacks})
    found = {kind: schedule(program_of(step, kind, dtype, rates), rounded) for kind in kinds}
    if len({tuple(s.sweep(t) for t in s.program.totals) for s in found.values()}) > 1:
        raise UntraceableError("sums over all tensors become known at different times for different kinds of tensors")
    return found


@lru_cache(maxsize=64)
def schedule(program: Program, rounded: bool) -> Schedule:
    """The schedule of a program, made once."""
    return Schedule(program, rounded=rounded)

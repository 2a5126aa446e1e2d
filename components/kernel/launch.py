"""Calling a compiled step: the addresses of parameters, gradients, state and scalars, as it wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoranger.components.kernel.build import build
from autoranger.components.kernel.program import Untraceable
from autoranger.components.kernel.record import record
from autoranger.components.kernel.schedule import Schedule
from autoranger.components.kernel.source import STORAGE, print_step

if TYPE_CHECKING:
    from autoranger.components.step import Step

TENSOR = ("rows", "columns", "matrix", "group", "stride", "count_stride", "first_row", "count", "theta", "grad")
"""Of a tensor, as in frame.h; pointers to its states follow."""

CALL = ("candidates", "tensors", "threads", "rows", "tensor", "scalars", "active", "kept", "parts")
"""The arguments, as in frame.h."""


class Kernel:
    """A step as one compiled function, on a CPU. Each tensor is used where it lies, whatever stack it is in.

    Args:
        step: with all its stacks.
        thetas: the tensors of all stacks, one after another: for one candidate in any shape, else `[K, 1, R, C]`.

    Raises:
        Untraceable: where the step does what a kernel cannot.
        Unavailable: where there is no compiler.
    """

    def __init__(self, step: Step, thetas: Sequence[Tensor]) -> None:
        self.step = step
        dtypes = {theta.dtype for theta in thetas}
        if len(dtypes) != 1 or step.lr.device.type != "cpu" or not dtypes <= STORAGE.keys():
            raise Untraceable("the parameters have several types, or are not on a CPU")
        dtype = dtypes.pop()
        schedules = {
            matrix: Schedule(record(step, matrix, dtype), rounded=dtype != step.dtype)
            for matrix in sorted({stack.matrix for stack in step.stacks})
        }
        source, self.layout = print_step(schedules, dtype, step.dtype)
        self.function = build(source)
        self.tensors = self._describe()
        candidates, count = step.lr.shape[0], len(self.tensors)
        rows = int(self.tensors["rows"].sum())
        self._kept = torch.empty(self.layout.slots * candidates * rows, dtype=step.dtype)
        self._parts = torch.empty(self.layout.totals * candidates * count, dtype=step.dtype)
        buffers = {f"{c.id} {name}": b for c in step.chain for name, b in c.named_buffers()}
        self._fixed = [buffers[name].to(step.dtype) for name in self.layout.scalars if name in buffers]
        fixed = iter(self._fixed)
        self.scalars = np.array(
            [address(next(fixed)) if name in buffers else (0, 0, 0) for name in self.layout.scalars]
        )
        names = enumerate(self.layout.scalars)
        self._signals = {row: name.removeprefix("signal ") for row, name in names if name not in buffers}
        addresses = self.tensors.ctypes.data, self.scalars.ctypes.data, 0, self._kept.data_ptr(), self._parts.data_ptr()
        self.call = np.array((candidates, count, 0, rows, *addresses), dtype=[(name, np.int64) for name in CALL])

    @torch.no_grad()
    def __call__(self, thetas: Sequence[Tensor], grads: Sequence[Tensor | None], active: Tensor | None = None) -> None:
        """Updates `thetas` and the state in place.

        Args:
            thetas: as at the beginning, each contiguous.
            grads: their gradients, contiguous and of the same type; a tensor without one is left as it is.
            active: a mask `[K, tensors]` of those to update; None means all.
        """
        self.step.steps += 1
        signals = self.step.scalars()
        for row, name in self._signals.items():
            self.scalars[row] = address(getattr(signals, name))
        self.tensors["theta"] = [theta.data_ptr() for theta in thetas]
        self.tensors["grad"] = [0 if grad is None else grad.data_ptr() for grad in grads]
        self.call["threads"] = torch.get_num_threads()
        self.call["active"] = 0 if active is None else active.data_ptr()
        self.function(self.call.ctypes.data)

    def _describe(self) -> NDArray[np.void]:
        """The tensors, as `Tensor` in frame.h, but for the addresses that change."""
        table, first_row = [], 0
        for stack in self.step.stacks:
            states = stack.named_state()
            candidates, tensors, rows, columns = stack.shape
            for b in range(tensors):
                count = stack.count[0, b].data_ptr()
                own = [states[name.removeprefix("state ")][0, b].data_ptr() for name in self.layout.states]
                numbers = rows, columns, stack.matrix, stack.group, tensors * rows * columns, tensors, first_row
                table.append((*numbers, count, 0, 0, own or [0]))
                first_row += rows
        states = ("states", np.int64, (max(1, len(self.layout.states)),))
        return np.array(table, dtype=[*((name, np.int64) for name in TENSOR), states])


def address(scalar: Tensor) -> tuple[int, int, int]:
    """Where a scalar `[K, groups, 1, 1]` begins, and how far apart candidates and groups are, 0 where they share it."""
    strides = (stride if size > 1 else 0 for size, stride in zip(scalar.shape, scalar.stride(), strict=True))
    return scalar.data_ptr(), next(strides), next(strides)

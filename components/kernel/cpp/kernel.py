"""The compiled step on a CPU: passes the addresses of parameters, gradients, state and scalars to a C++ function."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.step import Step
from autoranger.components.kernel.cpp.build import build
from autoranger.components.kernel.cpp.crossing import crossing
from autoranger.components.kernel.cpp.source import STORAGE, print_step
from autoranger.components.kernel.kernel import Kernel
from autoranger.components.kernel.recording.between import Work, work_between
from autoranger.components.kernel.recording.inputs import STATE
from autoranger.components.kernel.recording.printer import Arguments
from autoranger.components.kernel.recording.schedule import Schedule

NUMBER = ctypes.c_int64


class Scalar(ctypes.Structure):
    """`Scalar` of runtime.h. Addresses are plain numbers, here and below."""

    _fields_ = [(name, NUMBER) for name in ("value", "candidate_stride", "group_stride")]


class Call(ctypes.Structure):
    """`Call` of runtime.h."""

    _fields_ = [
        *((name, NUMBER) for name in ("candidates", "tensors", "threads", "rows", "first_sweep", "last_sweep")),
        *((name, NUMBER) for name in ("tensor", "scalars", "steps", "active", "kept", "parts")),
    ]


class CppKernel(Kernel):
    """The step as one C++ function, on a CPU."""

    types = STORAGE
    across = True

    def __init__(self, step: Step, params: Sequence[Tensor]) -> None:
        super().__init__(step, params)
        source, self.arguments = print_once(tuple(self.recording.schedules.items()), self.dtype, step.dtype, self.short)
        self.function = build(source)
        self._tensors = self._describe_tensors()
        self._scalars = self.scalars(self.arguments.scalars)
        scalars = [Scalar(x.data_ptr(), x.stride(0), x.stride(1)) for x in self._scalars]
        self._table = (Scalar * max(1, len(scalars)))(*scalars)
        candidates, count, rows = step.lr.shape[0], len(self._tensors), sum(u.rows for u in self._tensors)
        self._kept = step.lr.new_empty(self.arguments.slots * candidates * rows)
        self._parts = step.lr.new_empty(self.arguments.totals * candidates * count)
        self._crossing = crossing(step, self.recording.schedules, self._kept, self._parts)
        self._between = work_between(self.recording, across=True) if self.recording.has_matrices else []
        self._firsts = [*accumulate((stack.shape[1] for stack in step.stacks), initial=0)]
        self._addresses: tuple[list[int], list[int]] = [], []
        self._call = Call(
            *(candidates, count, 0, rows, 0, max(len(s.sweeps) for s in self.recording.schedules.values())),
            *(ctypes.addressof(self._tensors), ctypes.addressof(self._table), step.steps.data_ptr(), 0),
            *(self._kept.data_ptr(), self._parts.data_ptr()),
        )

    def __call__(self, params: Sequence[Tensor], grads: Sequence[Tensor | None], active: Tensor | None = None) -> None:
        self.step.steps.add_(1)
        self.recording.compute_signals()
        # A gradient without numbers is one all the same: 0 means that there is none.
        addresses = [*map(Tensor.data_ptr, params)], [0 if x is None else x.data_ptr() or 1 for x in grads]
        if addresses != self._addresses:  # most are where they were in the step before
            for tensor, theta, grad in zip(self._tensors, *addresses, strict=True):
                tensor.theta, tensor.grad = theta, grad
            self._addresses = addresses
        self._call.threads = torch.get_num_threads()
        self._call.active = 0 if active is None else active.data_ptr()
        if self._crossing is None and not self._between:
            self.function(ctypes.addressof(self._call))
            return
        for sweep in range(max(len(self._crossing or ()), len(self._between))):
            self._call.first_sweep, self._call.last_sweep = sweep, sweep + 1
            self.function(ctypes.addressof(self._call))
            if self._crossing is not None:
                self._crossing[sweep](addresses[1])
            for work in self._between[sweep] if self._between else ():
                self._perform(work, addresses[1], active)

    def _perform(self, work: Work, grads: Sequence[int], active: Tensor | None) -> None:
        """Performs an operation on the matrices of a stack that are updated."""
        first, end = self._firsts[work.stack : work.stack + 2]
        present = [grad != 0 for grad in grads[first:end]]
        if any(present):
            mask = None if active is None else active[:, first:end, None, None]
            if not all(present):
                given = torch.tensor(present, device=work.matrices.device).view(1, -1, 1, 1)
                mask = given if mask is None else mask & given
            with torch.no_grad():
                work(mask)

    def _describe_tensors(self) -> Any:
        """An array of `Tensor` of runtime.h, complete but for the addresses that change."""
        names, entries, first_row = self.arguments.states, [], 0
        for stack in self.step.stacks:
            held = stack.named_state()
            _, tensors, rows, columns = stack.shape
            for b in range(tensors):
                own = (held.get(name.removeprefix(STATE)) for name in names)
                states = [0 if x is None else x[0, b].data_ptr() for x in own]
                sizes = rows, columns, *(stack.shards.rows if stack.shards else (rows, columns))
                fixed = *sizes, stack.kind, stack.group, tensors * rows * columns, tensors, first_row
                entries.append((*fixed, stack.count[0, b].data_ptr(), 0, 0, tuple(states)))
                first_row += rows
        return (tensor_type(len(names)) * len(entries))(*entries)  # type: ignore[misc]


@lru_cache(maxsize=64)
def print_once(
    schedules: tuple[tuple[int, Schedule], ...], dtype: torch.dtype, compute: torch.dtype, short: tuple[str, ...]
) -> tuple[str, Arguments]:
    """`print_step`, once for the same schedules."""
    return print_step(dict(schedules), dtype, compute, short)


@lru_cache(maxsize=64)
def tensor_type(states: int) -> type[ctypes.Structure]:
    """`Tensor` of runtime.h, with that many states."""
    numbers = "rows", "columns", "whole_rows", "whole_columns", "kind", "group", "stride", "count_stride", "first_row"
    fields = [*((name, NUMBER) for name in (*numbers, "count", "theta", "grad")), ("states", NUMBER * max(1, states))]
    return type("Tensor", (ctypes.Structure,), {"_fields_": fields})

"""The compiled step on a GPU: keeps tables of addresses and shapes on the device, and launches a kernel for each pass.

Nothing here waits for the device. Tables that never change are sent once. The addresses of parameters and gradients are
sent again in each step in which they differ from those of the step before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.kernel import Kernel
from autoranger.components.kernel.triton.build import build
from autoranger.components.kernel.triton.source import TILES, TYPES, print_kernels

ITEM = 1 << 12
"""Numbers in an item, at least, if its tensor has as many: a few tiles, so that a GPU has enough items."""

MOST_ITEMS = 1 << 11
"""Items of a tensor, about: each program of a later pass adds up the sums of all of them."""

MOST = 1 << 30
"""Rows or columns of a tensor, at most: they are counted in 32 bits."""

RESERVE = 16
"""Steps that may be captured with gradients that are not where they were in the step before."""


class TritonKernel(Kernel):
    """The step as a few Triton kernels, on a GPU: a launch that counts updates, and one for each pass.

    `torch.cuda.graph` may capture it, since gradients stay where they are while a graph is replayed.
    """

    types = TYPES

    def __init__(self, step: Step, params: Sequence[Tensor]) -> None:
        super().__init__(step, params)
        if self.recording.has_matrices:
            raise UntraceableError("it has operations on matrices, for which kernels on a GPU do not wait")
        device = step.lr.device
        source, arguments, passes = print_kernels(self.recording.schedules, self.dtype, step.dtype, self.short)
        module = build(source)
        units, items, rows = describe(step, arguments.states)
        self._sizes = candidates, count, _, _ = step.lr.shape[0], len(units), rows, len(items)
        self._scalars = self.scalars(arguments.scalars)
        scalars = ((x.data_ptr(), x.stride(0), x.stride(1)) for x in self._scalars)
        self._tables = [
            torch.tensor([*chain(*table), 0], dtype=torch.int64, device=device) for table in (units, items, scalars)
        ]
        lengths = arguments.slots * rows, arguments.slots * len(items), arguments.totals * count
        self._sums = [step.lr.new_empty(max(1, candidates * length)) for length in lengths]
        self._sent = Sent(2 * count, device)
        self._all = torch.ones(candidates, count, dtype=torch.bool, device=device)
        self._count = module.count, -(-candidates * count // module.runtime.BLOCK.value)
        self._passes = [(getattr(module, name), candidates * len(items)) for name in passes]

    @torch.no_grad()
    def __call__(self, params: Sequence[Tensor], grads: Sequence[Tensor | None], active: Tensor | None = None) -> None:
        # A gradient without numbers is one all the same: 0 means that there is none.
        addresses = self._sent([0 if x is None else x.data_ptr() or 1 for x in (*params, *grads)])
        mask = self._all if active is None else active
        given = *self._tables, addresses, mask, self.step.steps, *self._sums, *self._sizes
        with torch.cuda.device_of(addresses):  # type: ignore[no-untyped-call]
            launch([self._count], given)
            self.recording.compute_signals()
            launch(self._passes, given)


def launch(kernels: Iterable[tuple[Any, int]], arguments: Sequence[object]) -> None:
    """Has the device run kernels one after another, each as so many programs."""
    for kernel, programs in kernels:
        # Products are not fused into sums: a gradient minus its mean is to be zero where it should be.
        kernel[(programs,)](*arguments, enable_fp_fusion=False)


class Sent:
    """A list of numbers on a device, sent again when it has changed.

    Nobody waits for a copy from pinned memory, which has to stay as it is until it is copied: torch sees to that when
    the memory is handed back. A graph that is captured goes on to read what it has captured, and to copy it, where the
    copy is part of it; so all of that is kept, and what such a copy makes is for the graph alone.

    Args:
        length: of the list.
        device: to send it to.
    """

    def __init__(self, length: int, device: torch.device) -> None:
        self.device, self._length = device, length
        self._numbers: list[int] = []
        self._table = torch.empty(0)
        self._captured: list[tuple[Tensor, ...]] = []
        self._reserve: list[Tensor] = []

    def __call__(self, numbers: list[int]) -> Tensor:
        """The numbers on the device."""
        capturing = self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        if numbers != self._numbers:
            if capturing:
                host = self._reserve.pop() if self._reserve else self._pinned(1)[0]
                table = self._send(numbers, host)
                self._captured.append((host, table))
                return table
            self._reserve = self._reserve or list(self._pinned(RESERVE))  # during a capture there may be none to be had
            self._numbers, self._table = numbers, self._send(numbers, self._pinned(1)[0])
        if capturing:
            self._captured.append((self._table,))
        return self._table

    def _send(self, numbers: list[int], host: Tensor) -> Tensor:
        return host.copy_(torch.tensor(numbers, device="cpu")).to(self.device, non_blocking=True)

    def _pinned(self, count: int) -> Tensor:
        pinned = self.device.type == "cuda"
        return torch.empty(count, self._length, dtype=torch.int64, device="cpu", pin_memory=pinned)


def describe(step: Step, states: Sequence[str]) -> tuple[list[tuple[int, ...]], list[tuple[int, int]], int]:
    """The tables `units` and `items` of `source`, and how many rows all tensors have."""
    units: list[tuple[int, ...]] = []
    items: list[tuple[int, int]] = []
    first_row = 0
    for stack in step.stacks:
        held = stack.named_state()
        _, tensors, rows, columns = stack.shape
        if max(rows, columns) > MOST:
            raise UntraceableError("a tensor has more rows or columns than 32 bits can count")
        item_rows = rows_of_item(rows, columns, TILES[stack.matrix][0])
        for b in range(tensors):
            firsts = range(0, rows, item_rows)
            shape = rows, columns, stack.whole_kind, stack.group, tensors * rows * columns
            count = stack.count[0, b].data_ptr(), tensors
            own = (held.get(name.removeprefix("state ")) for name in states)
            addresses = (0 if x is None else x[0, b].data_ptr() for x in own)
            units.append((*shape, first_row, len(items), len(firsts), item_rows, *count, *addresses))
            items += [(len(units) - 1, first) for first in firsts]
            first_row += rows
    return units, items, first_row


def rows_of_item(rows: int, columns: int, tile: int) -> int:
    """How many rows of a tensor an item has: whole tiles, of which few are enough for small tensors."""
    wanted = max(-(-ITEM // max(1, columns)), -(-rows // MOST_ITEMS))
    return -(-wanted // tile) * tile

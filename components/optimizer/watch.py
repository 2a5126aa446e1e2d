"""Noticing that somebody has changed the weights since the last step: loaded, copied or initialized them anew."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Container, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from autoranger.components.core.private import version

BITS: dict[int, Any] = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}
"""What has as many bytes as a number of a tensor."""


class Watch:
    """What parameters were after the last step, as far as it is cheap to see.

    On a CPU these are a parameter's first and last number: whoever replaces all numbers changes them, in whatever way,
    and averaged weights that were swapped in and out again are no change. On other devices reading them would wait for
    the device. There, parameters are compared by torch's count of operations in place, which does not see what is done
    to `p.data`.

    Args:
        params: to watch.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = params
        self.seen: Sequence[int | None] = ()
        """Two numbers for each parameter, as they were after the last step; None where unknown, empty before a step."""
        self._readable = all(p.is_cpu and type(p) in (Tensor, Parameter) for p in params)
        self._often: set[int] = set()
        self._addresses: list[int] = []
        self._read: Callable[[], Sequence[int]] = tuple

    def note(self) -> None:
        """Remembers what the parameters are now. Where they are in memory is known from `changed`."""
        self.seen = self._look()

    def changed(self) -> list[int]:
        """The parameters that somebody has given other weights.

        What is changed before every step, clipped, projected or masked, is not: that belongs to the training.
        """
        now = self.look()
        if now == self.seen or not self.seen:
            self._often = set()
            return []
        found = {i // 2 for i, (a, b) in enumerate(zip(now, self.seen, strict=True)) if b is not None and a != b}
        new, self._often = found - self._often, found
        return sorted(new)

    def look(self) -> Sequence[int]:
        """Two numbers for each parameter, as they are now."""
        if self._readable:
            addresses = [*map(Tensor.data_ptr, self.params)]
            if addresses != self._addresses:
                self._addresses = addresses
                self._read = reader(self.params, addresses)
        return self._look()

    def excuse(self, before: Sequence[int], those: Container[int]) -> None:
        """Takes what has happened to some parameters since a look as no change."""
        if self.seen:
            looks = enumerate(zip(self.seen, before, self.look(), strict=True))
            self.seen = tuple(s if s is None or i // 2 not in those else s + b - a for i, (s, a, b) in looks)

    def _look(self) -> Sequence[int]:
        if self._readable:
            return self._read()
        versions = map(version, self.params)
        return tuple(count for count in versions for _ in range(2))


def reader(params: Sequence[Tensor], addresses: Sequence[int]) -> Callable[[], Sequence[int]]:
    """A function that reads the first and the last number of each parameter from memory, as bits."""
    found = [ends(p, address) for p, address in zip(params, addresses, strict=True)]
    places, sizes = [place for pair in found for place in pair], {p.element_size() for p in params}
    first, size = min(places), min(sizes)
    if len(sizes) == 1 and first and all((place - first) % size == 0 for place in places):
        # An array of all memory between them, of which a single call picks these numbers.
        memory = (BITS[size] * ((max(places) - first) // size + 1)).from_address(first)
        return partial(itemgetter(*((place - first) // size for place in places)), memory)
    numbers = [
        BITS[p.element_size()].from_address(place) if place else BITS[size](0)
        for p, pair in zip(params, found, strict=True)
        for place in pair
    ]
    return lambda: tuple(number.value for number in numbers)


def ends(p: Tensor, address: int) -> tuple[int, int]:
    """The addresses of the first and the last number of a tensor; zeros where it has none."""
    if not address or not p.numel():
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
    return address, address + last * p.element_size()

"""Noticing that weights have been changed by somebody else since the last step: loaded, copied, initialized anew."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import Parameter

BITS: dict[int, Any] = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}
"""What has as many bytes as a number of a tensor."""


class Watch:
    """What parameters were after the last step, as far as it is cheap to see.

    On a CPU these are a parameter's first and last number, which no change of all its numbers leaves alone, whatever
    way it takes; and averaged weights that were swapped in and out again are no change. Elsewhere a look would wait for
    the device, and the count of operations in place has to do, which does not see what is done to `p.data`.

    Args:
        params: to watch.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = params
        self.seen: list[object] = []
        """What the parameters were after the last step, a first and a second look at each; empty before any step."""
        self._readable = all(p.is_cpu and type(p) in (Tensor, Parameter) for p in params)
        self._often: set[int] = set()
        self._places: list[int] = []
        self._numbers: list[Any] = []

    def note(self) -> None:
        """Remembers what the parameters are now. Called where `changed` has been called since they were moved."""
        self.seen = self._look()

    def changed(self) -> list[int]:
        """The parameters that somebody has given other weights.

        What is changed before every step, clipped, projected or masked, is not: that belongs to the training.
        """
        if self._readable:
            places = [*map(Tensor.data_ptr, self.params)]
            if places != self._places:
                self._places = places
                self._numbers = [x for p, place in zip(self.params, places, strict=True) for x in ends(p, place)]
        now = self._look()
        if now == self.seen or not self.seen:
            self._often = set()
            return []
        found = {i // 2 for i, (a, b) in enumerate(zip(now, self.seen, strict=True)) if b is not None and a != b}
        new, self._often = found - self._often, found
        return sorted(new)

    def _look(self) -> list[object]:
        if self._readable:
            return [x.value for x in self._numbers]
        versions = (0 if p.is_inference() else p._version for p in self.params)
        return [x for version in versions for x in (version, version)]


def ends(p: Tensor, place: int) -> tuple[Any, Any]:
    """The first and the last number of a tensor, as bits, where they are; two zeros where it has none."""
    bits = BITS[p.element_size()]
    if not place or not p.numel():
        return bits(), bits()
    last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
    return bits.from_address(place), bits.from_address(place + last * p.element_size())

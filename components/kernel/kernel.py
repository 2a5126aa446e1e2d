"""What all compiled steps have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from autoranger.components.core.step import Step
from autoranger.components.kernel.recording.inputs import check, short_states, spread
from autoranger.components.kernel.recording.recording import Recording


class Kernel(ABC):
    """A compiled step. It updates each tensor where it lies in memory, in whatever stack it is.

    Schedules are part of what is compiled, if they can be recorded.

    Args:
        step: with all its stacks.
        params: the tensors of all stacks, one after another: for one candidate in any shape, else `[K, 1, R, C]`.

    Attributes:
        recording: of the step.
        dtype: of the parameters.
        short: the states that are bfloat16, by the names of their inputs.

    Raises:
        UntraceableError: if the step does what cannot be recorded.
        UnavailableError: if there is no compiler.
    """

    types: ClassVar[Container[torch.dtype]]
    """Types that parameters can have."""

    across: ClassVar[bool] = False
    """Whether it can complete sums that cross processes."""

    def __init__(self, step: Step, params: Sequence[Tensor]) -> None:
        self.step = step
        self.dtype = check(step, params, self.types)
        self.short = short_states(step)
        self.recording = Recording(step, self.dtype, across=self.across)

    @abstractmethod
    def __call__(self, params: Sequence[Tensor], grads: Sequence[Tensor | None], active: Tensor | None = None) -> None:
        """Updates parameters and state in place.

        Args:
            params: as in the constructor, each contiguous.
            grads: their gradients, contiguous and of the same type. A tensor without a gradient is not updated.
            active: a contiguous mask `[K, tensors]` of those to update; None means all.
        """

    def scalars(self, names: Sequence[str]) -> list[Tensor]:
        """The buffers that the passes read, by name, as `[K, groups, 1, 1]`."""
        return [spread(self.recording.scalars[name], self.step.lr) for name in names]

"""What a recorded step is given: which scalars, in which form, and whether its tensors are such as it can take."""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch import Tensor

from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError

SIGNAL = "signal "
"""What the names of inputs begin with that come out of the rate stage, where that is not recorded."""


STATE = "state "
"""What the names of inputs begin with that are state."""


def scalar_inputs(step: Step, rates: bool) -> dict[str, Tensor]:
    """The buffers that a recorded step reads, by its inputs' names: its components'; with `rates` its own, too."""
    named = {
        f"{prefix(number)}{link.component.id} {name}": buffer
        for number, chain in enumerate(step.chains)
        for link in chain
        for name, buffer in link.component.named_buffers()
    }
    if rates:
        for name, buffer in step.named_buffers(recurse=False):
            named["steps" if buffer is step.steps else f"step: {name}"] = buffer
    return named


def prefix(chain: int) -> str:
    """What the names of the inputs begin with that components of a chain have."""
    return f"{chain}/" if chain else ""


def check(step: Step, thetas: Sequence[Tensor], types: Container[torch.dtype]) -> torch.dtype:
    """The type of all parameters; UntraceableError where a kernel cannot deal with it, or with the state."""
    dtypes = {theta.dtype for theta in thetas}
    if len(dtypes) != 1 or not all(dtype in types for dtype in dtypes):
        raise UntraceableError(f"the parameters have the types {', '.join(sorted(map(str, dtypes)))}")
    dtype = dtypes.pop()
    for stack in step.stacks:
        for name, buffer in stack.named_state().items():
            if name in stack.of_pairs:
                continue
            if buffer.shape != stack.shape or not buffer.is_contiguous():
                raise UntraceableError(f"the state {name} is not of its parameter's shape")
            if buffer.dtype != step.dtype and buffer.dtype != step.state_dtype:
                raise UntraceableError(f"the state {name} is {buffer.dtype}")
    return dtype


def short_states(step: Step) -> tuple[str, ...]:
    """The states that are not of the type to compute in, by the names of their inputs."""
    every = {name: x.dtype for stack in step.stacks for name, x in stack.named_state().items()}
    return tuple(STATE + name for name, dtype in every.items() if dtype != step.dtype)


def spread(scalar: Tensor, like: Tensor) -> Tensor:
    """A scalar in the type and shape of `like`, `[K, groups, 1, 1]`, to which it broadcasts; itself where it can be.

    What candidates or groups share has a stride of 0.
    """
    if scalar.dtype != like.dtype or scalar.shape != like.shape:
        return scalar.to(like.dtype).expand_as(like)
    return scalar

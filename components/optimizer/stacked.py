"""State of parameters in an optimizer's `state`, where users find and change it, as views of a stack's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.rows import from_rows
from autoranger.components.core.shards import local
from autoranger.components.core.stack import Stack

State = dict[Tensor, dict[str, Any]]
"""An optimizer's `state`."""


@dataclass(eq=False)
class StackedParameters:
    """A stack, the parameters in it, and the views of its state that are in the optimizer's `state`.

    `conv_groups` is how many groups the transposed convolution has whose kernels these are; else 0.
    """

    stack: Stack
    members: list[Tensor]
    views: list[dict[str, Tensor]]
    conv_groups: int

    def is_intact(self, b: int, state: State) -> bool:
        """Whether a member's state is still what this has put there, and where it was."""
        entry, own = state.get(self.members[b]), self.views[b]
        if not isinstance(entry, dict) or any(entry.get(name) is not view for name, view in own.items()):
            return False
        return all(type(x) is not Tensor or x.data_ptr() == local(own[n]).data_ptr() for n, x in views(self.stack, b))


def views(stack: Stack, b: int) -> Iterator[tuple[str, Tensor]]:
    """The state of one tensor of a stack, by name: `[R, C]` for what is of its shape, and the count of its updates."""
    yield "step", stack.count[0, b, 0, 0]
    for name, buffer in stack.named_state().items():
        yield name, buffer[0, b]


def adopt(stack: Stack, b: int, p: Tensor, state: State, conv_groups: int) -> dict[str, Tensor]:
    """Copies state that exists into a stack, and makes `state` hold views of the stack, which are returned."""
    shards, shape = stack.shards, local(p).shape
    own: dict[str, Tensor] = {}
    entry, apart = state.setdefault(p, {}), {"step", *stack.of_pairs}
    for name, view in views(stack, b):
        mine = view if name in apart else from_rows(view, shape, conv_groups)
        if name in entry:
            given = torch.as_tensor(entry[name], device=p.device)
            if shards and name not in apart and math.prod(given.shape) == math.prod(p.shape):
                given = shards.part(given)
            if given.shape not in (mine.shape, shape if conv_groups else mine.shape) and (
                name != "step" or given.numel() != 1
            ):
                raise ConfigError(
                    f"the state {name} of a parameter of shape {tuple(p.shape)} has the shape {tuple(given.shape)}; "
                    "give it the parameter's, or delete the parameter from optimizer.state to begin anew."
                )
            mine.copy_(given.reshape(mine.shape))
        own[name] = shards.wrap(mine) if shards and name not in apart else mine
    entry |= own
    return own

"""What a step keeps for a stack of parameters: how often each was updated, and the state of the components."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoranger.components.core.component import Component
from autoranger.components.core.private import buffers
from autoranger.components.core.shards import Shards


class Slot(nn.Module):
    """The state of one component for one stack, in single precision at least: see `held_in`."""

    def __init__(self, component: Component, theta: Tensor) -> None:
        super().__init__()
        self.initial, self.copies = component.state, copies_weights(component)
        theta = theta.to(held_in(theta.dtype))
        for name, initial in self.initial.items():
            self.register_buffer(name, initial(theta))

    def tensors(self) -> dict[str, Tensor]:
        """State by name."""
        return {name: buffer for name, buffer in buffers(self).items() if buffer is not None}

    def restart(self, b: int, theta: Tensor) -> None:
        """The state of tensor `b`, which is `theta` `[K, 1, R, C]`, as at the beginning."""
        theta = theta.to(held_in(theta.dtype))
        for name, buffer in self.tensors().items():
            buffer[:, b : b + 1].copy_(self.initial[name](theta))


class Stack(nn.Module):
    """What the step keeps for one stack: its count of updates, and each component's state.

    Args:
        chain: the components, in order.
        theta: the parameters `[K, B, R, C]` as the first step finds them; Lookahead starts from them.
        matrix: see `Signals`.
        group: which of the step's groups of scalars they use.
        shards: how they are spread over processes, where they are; `theta` is then what is here.
    """

    count: Tensor

    def __init__(
        self, chain: Sequence[Component], theta: Tensor, matrix: bool, group: int, shards: Shards | None = None
    ) -> None:
        super().__init__()
        self.matrix, self.group, self.shards, self.shape = matrix, group, shards, theta.shape
        self.register_buffer("count", torch.zeros(*theta.shape[:2], 1, 1, dtype=torch.int64, device=theta.device))
        self.by_id = {c.id: Slot(c, theta) for c in chain if c.state}
        self.slots = nn.ModuleList(self.by_id.values())
        self.copies = any(slot.copies for slot in self.by_id.values())

    @property
    def kind(self) -> int:
        """What a recording depends on: 1 for a matrix, plus 2 if processes share rows, 4 if they share the tensor."""
        if not self.shards:
            return int(self.matrix)
        return self.matrix + 2 * self.shards.are_rows_cut + 4 * bool(self.shards.groups)

    def restart_copies(self, b: int, theta: Tensor) -> None:
        """Begins anew, for tensor `b`, the state of components that keep a copy of weights which are no more."""
        for slot in self.by_id.values():
            if slot.copies:
                slot.restart(b, theta)

    def state(self, component: Component) -> dict[str, Tensor]:
        """The state of one component, by name; empty where it has none."""
        return self.by_id[component.id].tensors() if component.state else {}

    def named_state(self) -> dict[str, Tensor]:
        """All state, by component and name."""
        return {f"{c}.{name}": buffer for c, slot in self.by_id.items() for name, buffer in slot.tensors().items()}


def held_in(dtype: torch.dtype) -> torch.dtype:
    """The type of the state of parameters of a type: theirs, but float32 where they are of half precision.

    Eight bits of a mantissa cannot follow a second moment, which changes by a thousandth in a step, and float16 has no
    room for squares of small gradients.
    """
    return torch.promote_types(dtype, torch.float32)


def copies_weights(component: Component) -> bool:
    """Whether a component has state that begins as a copy of the parameters."""
    return torch.clone in component.state.values()

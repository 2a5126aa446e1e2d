"""What a step keeps for a stack of parameters: how often each was updated, and the state of the components."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autoranger.components.core.component import Component
from autoranger.components.core.matrices import is_of_pairs
from autoranger.components.core.private import buffers
from autoranger.components.core.rounding import salt_of, stochastic
from autoranger.components.core.shards import Shards


class Stack(nn.Module):
    """What the step keeps for one stack: its count of updates, and each component's state.

    Args:
        chain: the components, in order.
        theta: the parameters `[K, B, R, C]` as the first step finds them; Lookahead starts from them.
        matrix: see `Signals`.
        group: which of the step's groups of scalars they use.
        shards: how they are spread over processes, where they are; `theta` is then what is here.
        state_dtype: of the state that does not begin as a copy of the parameters; None means as `held_in` says.
    """

    count: Tensor
    chain: int = 0
    """The number of the step's chain that it goes through."""

    def __init__(
        self,
        chain: Sequence[Component],
        theta: Tensor,
        matrix: bool,
        group: int,
        shards: Shards | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.matrix, self.group, self.shards, self.shape = matrix, group, shards, theta.shape
        self.register_buffer("count", torch.zeros(*theta.shape[:2], 1, 1, dtype=torch.int64, device=theta.device))
        self.owners = [c for c in chain if c.state]
        theta = theta.to(held_in(theta.dtype))
        rows = (shards.rows if shards else theta.shape[2:]) if matrix else (0, 0)
        whole = theta.new_empty(()).expand(*theta.shape[:2], *rows)
        for owner in self.owners:
            for name, initial in owner.state.items():
                pairs = is_of_pairs(initial)
                dtype = theta.dtype if state_dtype is None or is_exact(initial) else state_dtype
                self.register_buffer(key(owner, name), initial(whole if pairs else theta).to(dtype))
        self.of_pairs = names_of_pairs(self.owners)
        self.copies = any(map(copies_weights, self.owners))

    @property
    def kind(self) -> int:
        """What a recording depends on: `whole_kind`, plus 2 if processes share rows, 4 if they share the tensor."""
        if not self.shards:
            return self.whole_kind
        return self.whole_kind + 2 * self.shards.are_rows_cut + 4 * bool(self.shards.groups)

    @property
    def whole_kind(self) -> int:
        """What a recording of tensors depends on that no processes share: 1 for a matrix, plus 8 times the chain."""
        return self.matrix + 8 * self.chain

    def restart_copies(self, b: int, theta: Tensor) -> None:
        """Begins anew, for tensor `b`, the state of components that keep a copy of weights, which is now `theta`."""
        theta = theta.to(held_in(theta.dtype))
        for owner in filter(copies_weights, self.owners):
            for name, buffer in self.state(owner).items():
                buffer[:, b : b + 1].copy_(owner.state[name](theta))

    def state(self, component: Component) -> dict[str, Tensor]:
        """The state of one component, by name; empty where it has none."""
        own: dict[str, Any] = buffers(self)
        return {name: own[key(component, name)] for name in component.state}

    def rounded(self, component: Component, changed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What is to be stored of a component's state: itself, by chance rounded up or down where that is bfloat16."""
        held = self.state(component)
        short = {name: x for name, x in changed.items() if held[name].dtype == torch.bfloat16}
        if not short:
            return changed
        rows = torch.arange(self.shape[2], device=self.count.device).view(1, 1, -1, 1)
        salts = {name: salt_of(f"{component.id}.{name}") for name in short}
        return {**changed, **{name: stochastic(x, self.count, rows, salts[name]) for name, x in short.items()}}

    def named_state(self) -> dict[str, Tensor]:
        """All state, by component and name."""
        return {f"{c.id}.{name}": buffer for c in self.owners for name, buffer in self.state(c).items()}


def key(owner: Component, name: str) -> str:
    """What the buffer of a component's state is called in a stack; names of buffers have no dots."""
    return f"{owner.id}:{name}"


def held_in(dtype: torch.dtype) -> torch.dtype:
    """The type of the state of parameters of a type: theirs, but float32 where they are of half precision.

    Eight bits of a mantissa cannot follow a second moment, which changes by a thousandth in a step, and float16 has no
    room for squares of small gradients.
    """
    return torch.promote_types(dtype, torch.float32)


def is_exact(initial: Callable[[Tensor], Tensor]) -> bool:
    """Whether state that is made so has the type that is computed in, whatever `state_dtype` is."""
    return initial is torch.clone or is_of_pairs(initial)


def names_of_pairs(components: Iterable[Component]) -> set[str]:
    """The names of state of components that is not of the tensors' shape; see `matrices`."""
    return {f"{c.id}.{name}" for c in components for name, initial in c.state.items() if is_of_pairs(initial)}


def copies_weights(component: Component) -> bool:
    """Whether a component has state that begins as a copy of the parameters."""
    return torch.clone in component.state.values()

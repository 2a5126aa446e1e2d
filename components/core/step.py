"""The single vectorized step over all parameters of K candidates: AdamW's parts and the components, in their order.

The same step serves K = 1 (a user's optimizer) and K = thousands (a search). Parameters come as stacks
`[K, B, R, C]` (see `rows`); candidates and equal-shaped tensors are axes, never loops. Gating lives here alone: a
component that is on for all candidates runs bare, one that is off for all is not there, and only one that differs
between candidates is selected with `torch.where` (a product would let NaN through).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from autoranger.components.core.chain import Link, chains_of, head_of, heads, schedules_of, sweeps
from autoranger.components.core.component import Signals
from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError, require_count
from autoranger.components.core.shards import Shards
from autoranger.components.core.signals import SCALARS, Role
from autoranger.components.core.stack import Stack, held_in
from autoranger.components.core.sums import together
from autoranger.components.core.totals import collect


class Step(nn.Module):
    """One optimizer step of K candidates, in place.

    Args:
        configs: one for each candidate.
        total_steps: T, the planned length; one number, needed only by components that say so.
        dtype: in which to compute.
        device: of the parameters.
        groups: for each parameter group what every candidate's config is for it (`Config.of`): lr, betas, eps, weight
            decay, T and what is on are its own. By default there is one group, of the configs themselves.
        shared: whether its components are those of all other steps of the same configs, each of one candidate.
        state_dtype: see `Stack`.
        switched: ids of components that are part of it, with a switch for each candidate, whoever has them on. What is
            recorded and compiled is then the same for other candidates.

    Raises:
        ConfigError: where a component needs `total_steps` and there is none.
    """

    lr: Tensor
    beta1: Tensor
    beta2: Tensor
    eps: Tensor
    weight_decay: Tensor
    total: Tensor
    steps: Tensor

    def __init__(
        self,
        configs: Sequence[Config],
        total_steps: int | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
        groups: Sequence[Sequence[Config]] | None = None,
        shared: bool = False,
        state_dtype: torch.dtype | None = None,
        switched: Collection[str] = (),
    ) -> None:
        super().__init__()
        require_total_steps(configs, total_steps)
        groups = groups or [configs]
        every = [config for candidate in zip(*groups, strict=True) for config in candidate]
        scalars = {
            "lr": [c.lr for c in every],
            "beta1": [c.betas[0] for c in every],
            "beta2": [c.betas[1] for c in every],
            "eps": [c.eps for c in every],
            "weight_decay": [c.weight_decay for c in every],
            "total": [total_steps or 0] * len(every),
        }
        columns = torch.tensor([*scalars.values()], dtype=dtype, device=device)
        for name, column in zip(scalars, columns.view(len(scalars), len(configs), -1, 1, 1).unbind(), strict=True):
            self.register_buffer(name, column.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=device))
        self.dtype, self.state_dtype = dtype, state_dtype
        self.chains, self.chain_of_group = chains_of(groups, dtype, device, shared=shared, switched=switched)
        """What is on in each parameter group, each chain once, and the number of each group's chain."""
        self.schedules = schedules_of(self.chains, groups)
        cuts = heads(self.chains)
        self.sweeps = [sweeps(chain, cuts) for chain in self.chains]
        if not shared:
            self.components = nn.ModuleList(link.component for chain in self.chains for link in chain)
        self.stacks: list[Stack] = []
        self.partners: Any = None
        """The processes that hold the other parameters of the model, where these are split between optimizers."""

    def add(self, theta: Tensor, *, matrix: bool, group: int = 0, shards: Shards | None = None) -> Stack:
        """Makes the state for one more stack of parameters `[K, B, R, C]`; see `Stack`."""
        components = [link.component for link in self.chain(group)]
        return self.take(Stack(components, theta, matrix, group, shards, self.state_dtype))

    def chain(self, group: int) -> Sequence[Link]:
        """What is on in a parameter group."""
        return self.chains[self.chain_of_group[group]]

    @property
    def is_collective(self) -> bool:
        """Whether any component needs a sum over all tensors of the model."""
        return any(head_of(sweep) for cut in self.sweeps for sweep in cut)

    @torch.no_grad()
    def evaluated(self, thetas: Sequence[Tensor]) -> list[Tensor]:
        """The weights to evaluate with; those of `thetas` themselves that no component has another opinion of."""
        return [evaluated(self.chains[s.chain], theta, s) for s, theta in zip(self.stacks, thetas, strict=True)]

    def take(self, stack: Stack) -> Stack:
        """Goes on with a stack that another step of the same components has made."""
        stack.chain = self.chain_of_group[stack.group]
        self.register_module(f"stack{len(self.stacks)}", stack)
        self.stacks.append(stack)
        return stack

    def scalars(self) -> Signals:
        """The signals at the current step after the rate stage, `[K, groups, 1, 1]`; those of a stack are not there."""
        lr = self.lr
        x = Signals(**dict.fromkeys(Signals._fields, lr.new_zeros(())))._replace(  # type: ignore[arg-type]
            rate=torch.ones_like(lr),
            decay=torch.ones_like(lr),
            lr=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            total=self.total,
            step=self.steps.to(self.dtype).expand_as(lr),
        )
        found = [scheduled(links, x) for links in self.schedules]
        if len(found) == 1:
            return found[0]
        by_group = [of_group(found[chain], group) for group, chain in enumerate(self.chain_of_group)]
        return x._replace(**{name: torch.cat([getattr(y, name) for y in by_group], dim=1) for name in SCALARS})  # type: ignore[arg-type]

    @torch.no_grad()
    def forward(
        self,
        thetas: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        active: Sequence[Tensor | None] | None = None,
    ) -> None:
        """Updates `thetas` and the state in place.

        Args:
            thetas: the parameters of each stack, `[K, B, R, C]`, in the order in which they were added.
            grads: their gradients; a stack without one is left as it is.
            active: for each stack None, or a mask `[K or 1, B or 1, 1, 1]` of the tensors to update.
        """
        self.steps += 1
        scalars = self.scalars()
        masks = active or [None] * len(self.stacks)
        signals: dict[int, Signals] = {}
        for i, (stack, theta, grad) in enumerate(zip(self.stacks, thetas, grads, strict=True)):
            if grad is not None:
                mask = masks[i]
                stack.count += 1 if mask is None else mask
                signals[i] = of_group(scalars, stack.group)._replace(
                    theta=theta.to(self.dtype),
                    grad=grad.to(self.dtype),
                    updates=stack.count.to(self.dtype),
                    matrix=stack.matrix,
                )
        last = len(self.sweeps[0]) - 1
        for number, sweep in enumerate(zip(*self.sweeps, strict=True)):
            totals = collect([*map(head_of, sweep)], signals, scalars, self.stacks, masks, self.partners)
            signals = {i: x._replace(collected=totals) for i, x in signals.items()} if totals else signals
            sharded = [i for i in signals if self.stacks[i].shards]
            shared = run_together(sweep, {i: signals.pop(i) for i in sharded}, self.stacks, masks) if sharded else {}
            for i in [*signals, *shared]:
                # Popped, so that in the last sweep the memory of one stack is free before the next one is computed.
                own = sweep[self.stacks[i].chain]
                x = shared.pop(i) if i in shared else run(own, signals.pop(i), self.stacks[i], masks[i])
                if number == last:
                    write(thetas[i], x.theta, masks[i])
                else:
                    signals[i] = x


def scheduled(schedules: Sequence[Link], x: Signals) -> Signals:
    """The signals after some schedules."""
    for link in schedules:
        x, _ = link.advance(x, {})
    return x


def of_group(x: Signals, group: int) -> Signals:
    """The scalars of one parameter group, `[K, 1, 1, 1]`."""
    if x.lr.shape[1] == 1:
        return x
    return x._replace(**{name: getattr(x, name)[:, group : group + 1] for name in SCALARS})


def run(sweep: Sequence[Link], x: Signals, stack: Stack, mask: Tensor | None) -> Signals:
    """One stack through one sweep; writes the state."""
    for link in sweep:
        held = stack.state(link.component)
        x, changed = link.advance(x, held)
        write_state(held, stack.rounded(link.component, changed), mask)
    return x


def evaluated(chain: Sequence[Link], theta: Tensor, stack: Stack) -> Tensor:
    """The weights of one stack to evaluate with; see `Step.evaluated`."""
    if not any(Role.EVALUATION in link.component.replaces for link in chain):
        return theta
    found = theta.to(held_in(theta.dtype))
    for link in chain:
        found = link.evaluated(found, stack.state(link.component))
    return found.to(theta.dtype)


def run_together(
    sweeps: Sequence[Sequence[Link]],
    signals: dict[int, Signals],
    stacks: Sequence[Stack],
    masks: Sequence[Tensor | None],
) -> dict[int, Signals]:
    """Stacks that are spread over processes through one sweep of each chain, side by side; writes the state."""
    for links in zip_longest(*sweeps):
        own = {i: links[stacks[i].chain] for i in signals}
        now = {i: link for i, link in own.items() if link is not None}
        held = {i: stacks[i].state(link.component) for i, link in now.items()}
        found = together({i: partial(link.advance, signals[i], held[i]) for i, link in now.items()}, stacks)
        for i, (x, changed) in found.items():
            write_state(held[i], stacks[i].rounded(now[i].component, changed), masks[i])
            signals[i] = x
    return signals


def write_state(held: Mapping[str, Tensor], state: Mapping[str, Tensor], mask: Tensor | None) -> None:
    """Writes a component's state in place; what moves from one buffer to another, before its source is overwritten."""
    pending = dict(state)
    while pending:
        # A list and not a generator, which torch.compile cannot trace here.
        free = [name for name in pending if True not in [held[name] is value for value in pending.values()]]
        if not free:  # a cycle of moves
            pending = {name: value.clone() for name, value in pending.items()}
        for name in free:
            write(held[name], pending.pop(name), mask)


def write(target: Tensor, value: Tensor, mask: Tensor | None) -> None:
    """`target ← value` in place, where the mask allows it."""
    target.copy_(value if mask is None else torch.where(mask, value, target))


def require_total_steps(configs: Sequence[Config], total_steps: int | None) -> None:
    """ConfigError where a component needs `total_steps` and it is None, or where it is not a positive whole number."""
    if total_steps is None:
        needing = sorted({name for c in configs for name in c.needs_total_steps})
        if needing:
            raise ConfigError(
                f"total_steps is missing, but {' and '.join(needing)} need{'s' * (len(needing) == 1)} it: pass "
                "total_steps=<number of optimizer steps in your training>, or switch them off."
            )
    else:
        require_count("total_steps", total_steps)

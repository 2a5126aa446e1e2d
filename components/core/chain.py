"""The components of a step in their order, AdamW's parts among them, and how each is switched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from autoranger.components.core.adamw import ADAMW, Part
from autoranger.components.core.component import Component, Role, Settings, Signals, Stage, registry
from autoranger.components.core.config import Config
from autoranger.components.core.hyper import Setting
from autoranger.components.core.private import is_intercepted
from autoranger.components.core.rows import can_look
from autoranger.components.core.stack import is_exact

Chosen = tuple[type[Component], tuple[tuple[str, Setting], ...]]
"""A component and its hyperparameters."""


@dataclass(frozen=True)
class Link:
    """A component of the chain, and whether only some of the candidates have it on."""

    component: Component
    gated: bool

    def advance(self, x: Signals, held: Mapping[str, Tensor]) -> tuple[Signals, dict[str, Tensor]]:
        """The signals after the component, and the state that it changes, by name."""
        due = self.component.due(x)
        if due is not None and can_look(due):
            if not due.any():
                return x, {}
            due = None if due.all() else due
        state = {name: buffer.to(x.theta.dtype) for name, buffer in held.items()}
        y: Signals = self.component(x._replace(state=state))
        changed = {name: new for name, new in y.state.items() if new is not state[name]}
        if self.gated:
            on = self.component.switch if due is None else self.component.switch & due
        elif due is None:
            return y, changed
        else:
            on = due
        chosen = {
            name: torch.where(on, new, old)
            for name, new, old in zip(Signals._fields, y, x, strict=True)
            if isinstance(new, Tensor) and isinstance(old, Tensor) and new is not old
        }
        if due is not None:  # the state of a component that is off does not matter
            changed = {name: torch.where(due, new, state[name]) for name, new in changed.items()}
        return y._replace(**chosen), changed  # type: ignore[arg-type]

    def evaluated(self, theta: Tensor, held: Mapping[str, Tensor]) -> Tensor:
        """The weights to evaluate with, of those that are trained: the same ones where the component has no say."""
        component = self.component
        if Role.EVALUATION not in component.replaces:
            return theta
        found = component.evaluated(theta, {name: buffer.to(theta.dtype) for name, buffer in held.items()})
        return torch.where(component.switch, found, theta) if self.gated else found


def chains_of(
    groups: Sequence[Sequence[Config]],
    dtype: torch.dtype,
    device: torch.device,
    *,
    shared: bool = False,
    switched: Collection[str] = (),
) -> tuple[list[Sequence[Link]], list[int]]:
    """The chain of each parameter group, and which one that is: groups in which the same is on have one.

    Args:
        groups: for each group the config of every candidate.
        dtype, device: of hyperparameters.
        shared: whether they are those of all steps of the same config, of which there is one candidate.
        switched: see `chain_of`.
    """
    made: dict[object, tuple[int, Sequence[Link]]] = {}
    numbers = []
    for configs in groups:
        key = tuple(tuple((name, *settings.items()) for name, settings in c.components.items()) for c in configs)
        if key not in made:
            chain = shared_chain(configs[0], dtype, device) if shared else chain_of(configs, dtype, device, switched)
            made[key] = len(made), chain
        numbers.append(made[key][0])
    return [chain for _, chain in made.values()], numbers


def chain_of(
    configs: Sequence[Config], dtype: torch.dtype, device: torch.device, switched: Collection[str] = ()
) -> Sequence[Link]:
    """AdamW's parts and the components that any candidate has on, in order, without the parts that nobody needs.

    Args:
        configs: one for each candidate.
        dtype, device: of hyperparameters.
        switched: ids of components that are computed and selected even if no candidate has them on, or each has.
    """
    settings = {cls: [c.components.get(name) for c in configs] for name, cls in registry.items()}
    chosen = {cls: given for cls, given in settings.items() if cls.id in switched or any(s is not None for s in given)}
    return links(len(configs), chosen, dtype, device, switched)


def shared_chain(config: Config, dtype: torch.dtype, device: torch.device) -> Sequence[Link]:
    """`chain_of` one config, made once for all optimizers that have it: nothing in it changes from step to step."""
    chosen = tuple((registry[name], tuple(settings.items())) for name, settings in config.components.items())
    # What is made under a mode that sees every operation may be no ordinary tensors.
    make = made_once.__wrapped__ if is_intercepted() else made_once
    return make(chosen, dtype, device)


@lru_cache(maxsize=64)
def made_once(chosen: tuple[Chosen, ...], dtype: torch.dtype, device: torch.device) -> Sequence[Link]:
    """The chain of a single candidate with these components."""
    with torch.inference_mode(False):
        return links(1, {cls: [dict(settings)] for cls, settings in chosen}, dtype, device)


def links(
    candidates: int,
    settings: Mapping[type[Component], Sequence[Settings | None]],
    dtype: torch.dtype,
    device: torch.device,
    switched: Collection[str] = (),
) -> Sequence[Link]:
    """The chain of these components, with the hyperparameters of each candidate that has them on, and AdamW's parts."""
    chosen = [
        Link(cls(own, dtype, device), gated=cls.id in switched or any(s is None for s in own))
        for cls, own in settings.items()
    ]
    needed = [cls for cls in ADAMW if is_needed(cls, chosen)]
    parts = [Link(cls([{}] * candidates, dtype, device), gated=False) for cls in needed]
    # Sorting is stable: within a stage AdamW's part comes first.
    return tuple(sorted(parts + chosen, key=lambda link: link.component.stage))


def state_per_number(config: Config) -> int:
    """How many numbers of state an optimizer keeps for each number of a parameter: 2 for AdamW.

    Here and below, state of pairs of rows or columns (see `matrices`) counts as for a square matrix.
    """
    return len(states(config))


def bytes_per_number(config: Config, state_dtype: torch.dtype = torch.float32) -> int:
    """Bytes of state for each number of a parameter, which is of single or half precision."""
    return sum((torch.float32 if is_exact(initial) else state_dtype).itemsize for initial in states(config))


def states(config: Config) -> list[Callable[[Tensor], Tensor]]:
    """What makes each state tensor that an optimizer keeps, of AdamW's parts and components."""
    chain = shared_chain(config, torch.float32, torch.device("cpu"))
    return [initial for link in chain for initial in link.component.state.values()]


def is_needed(part: type[Part], chosen: Sequence[Link]) -> bool:
    """Whether any candidate needs this part of AdamW: one that is replaced for all before it is read is not."""
    for link in chosen:
        if part.role in link.component.needs:
            return True
        if part.role in link.component.replaces and not link.gated:
            return False
    return not any(part.stage in link.component.bypasses for link in chosen if not link.gated)


def heads(chains: Sequence[Sequence[Link]]) -> list[str]:
    """The components that need a sum over all stacks in any of these chains, in order: each begins a sweep."""
    found = {link.component.id: link.component for chain in chains for link in chain if link.component.collective}
    return sorted(found, key=lambda name: (found[name].stage, found[name].position, name))


def sweeps(chain: Sequence[Link], heads: Sequence[str]) -> list[list[Link]]:
    """A chain without its schedules, cut before each of `heads`, which have to wait for all stacks."""
    cut: list[list[Link]] = [[] for _ in (None, *heads)]
    now = 0
    for link in (link for link in chain if link.component.stage > Stage.RATE):
        if link.component.id in heads:
            now = heads.index(link.component.id) + 1
        cut[now].append(link)
    return cut


def schedules_of(chains: Sequence[Sequence[Link]], groups: Sequence[Sequence[Config]]) -> list[Sequence[Link]]:
    """The schedules of each chain; those of the first one for all of them, where they are the same everywhere."""
    found: list[Sequence[Link]] = [[k for k in chain if k.component.stage == Stage.RATE] for chain in chains]
    said = {
        tuple(
            tuple((name, *own.items()) for name, own in c.components.items() if registry[name].stage == Stage.RATE)
            for c in configs
        )
        for configs in groups
    }
    return found[:1] if len(said) == 1 else found


def head_of(sweep: Sequence[Link]) -> Link | None:
    """What begins a sweep, where that needs a sum over all stacks."""
    return sweep[0] if sweep and sweep[0].component.collective else None

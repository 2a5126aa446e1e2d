"""What an optimizer's `state_dict` may hold, going out and coming in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from autoranger.components.core.chain import shared_chain
from autoranger.components.core.component import Component
from autoranger.components.core.config import Config, complete
from autoranger.components.core.errors import ConfigError
from autoranger.components.core.shards import local
from autoranger.components.core.stack import names_of_pairs
from autoranger.components.optimizer.evaluation import MODE, TRAINED, tells_apart
from autoranger.components.optimizer.groups import chosen

if TYPE_CHECKING:
    from torch.optim.optimizer import StateDict


class Resume:
    """Checks what an optimizer loads, after its users' hooks have had it, and mends what torch makes of it.

    torch gives state the type of its parameter, which would round that of half-precision parameters, and takes all
    numbers of the groups from the state, the length of the training among them.
    """

    def __init__(self, optimizer: Optimizer, config: Config) -> None:
        self.optimizer, self.config = optimizer, config
        self._given: StateDict = {}
        self._own = [(group["total_steps"], group.get("kind")) for group in optimizer.param_groups]

    def __enter__(self) -> None:
        self._hooks = (
            self.optimizer.register_load_state_dict_pre_hook(self._check),
            self.optimizer.register_load_state_dict_post_hook(self._mend, prepend=True),
        )

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _check(self, optimizer: Optimizer, state_dict: StateDict) -> None:
        self._given = state_dict
        configs = [self.config.of(kind) for _, kind in self._own]
        for group, config in zip(state_dict["param_groups"], configs, strict=False):
            mine = config.to_dict()["components"]
            if filled(group.get("components") or {}) != mine:
                theirs = ", ".join(group.get("components", {"none of autoranger's": None}) or ()) or "none"
                raise ConfigError(
                    f"the state is of an optimizer with other components or hyperparameters ({theirs}); "
                    f"build it from the same config ({', '.join(mine) or 'none'} here)."
                )
        by_group = [
            state_names(config) | ({TRAINED} if group.get(MODE) and tells_apart(config) else set())
            for config, group in zip(configs, state_dict["param_groups"], strict=False)
        ]
        of_pairs = names_of_pairs(chain.from_iterable(map(components_of, configs)))  # `adopt` looks at their shapes
        every = [own for own, group in zip(by_group, optimizer.param_groups, strict=False) for _ in group["params"]]
        for number, ((p, entry), names) in enumerate(zip(self._pairs(), every, strict=False)):
            if entry and (missing := names - entry.keys()):
                raise ConfigError(
                    f"the state of parameter {number} lacks {', '.join(sorted(missing))}: it is of another version of "
                    "autoranger, or was cut; begin anew, or add what is missing in a load_state_dict pre-hook."
                )
            for name in (names & entry.keys()) - of_pairs:
                shape, wanted = tuple(torch.as_tensor(entry[name]).shape), () if name == "step" else tuple(p.shape)
                # The kernel of a transposed convolution in groups has state with an axis for them.
                fitting = math.prod(shape) == 1 if name == "step" else wanted in (shape, in_one(shape))
                if not fitting:
                    raise ConfigError(
                        f"the state is of another model: {name} of parameter {number} has the shape {shape}, but the "
                        f"parameter has {wanted}; load it into an optimizer of the same parameters in the same order."
                    )

    def _mend(self, optimizer: Optimizer) -> None:
        for p, entry in self._pairs():
            for name, value in entry.items():
                if isinstance(value, Tensor) and value.dtype != optimizer.state[p][name].dtype:
                    optimizer.state[p][name] = value.to(p.device)
        for group, (length, kind) in zip(optimizer.param_groups, self._own, strict=True):
            group["components"], group["kind"] = chosen(self.config.of(kind)), kind
            if length is not None:
                group["total_steps"] = length

    def _pairs(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The optimizer's parameters, and what the state has of each."""
        params = chain.from_iterable(group["params"] for group in self.optimizer.param_groups)
        keys = chain.from_iterable(group["params"] for group in self._given["param_groups"])
        return ((p, self._given["state"].get(key, {})) for p, key in zip(params, keys, strict=False))


def in_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with its first two axes as one."""
    return (math.prod(shape[:2]), *shape[2:])


def filled(components: object) -> object:
    """Saved components, with the defaults of hyperparameters that are newer; as they are where they are not valid."""
    try:
        return complete(components)
    except ConfigError:
        return components


def state_names(config: Config) -> set[str]:
    """What an optimizer of this config keeps for each parameter."""
    return {"step", *(f"{component.id}.{name}" for component in components_of(config) for name in component.state)}


def components_of(config: Config) -> list[Component]:
    """The components of an optimizer of this config, and AdamW's parts."""
    return [link.component for link in shared_chain(config, torch.float32, torch.device("cpu"))]


def own_memory(state_dict: StateDict) -> StateDict:
    """The same, with copies of tensors that are part of a larger memory, all of which would be saved with each."""
    state = state_dict.get("state", {})
    own = {key: {name: x.clone() if is_part(x) else x for name, x in entry.items()} for key, entry in state.items()}
    return state_dict | {"state": own}


def is_part(x: object) -> bool:
    """Whether a tensor, or the local part of one, shares its memory with others."""
    here = local(x) if isinstance(x, Tensor) else None
    return type(here) is Tensor and here.untyped_storage().nbytes() > here.nbytes

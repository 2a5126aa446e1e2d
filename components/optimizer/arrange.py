"""How what users pass as parameters becomes parameter groups: one for each kind, where kinds matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from autoranger.components.core.by_kind import names, number
from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.components.core.kinds import KINDS, kind_of, kinds_of, renamed
from autoranger.components.optimizer.groups import Group, chosen

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT


def arrange(params: ParamsT | nn.Module, config: Config) -> list[Any]:
    """What an optimizer is given, as torch takes it: a model as one group for each kind of its parameters.

    Parameters without a model stay as they are where the config says nothing of kinds. Where it does, each group that
    has no `kind` is split by the shapes of its parameters, and by their names where it has some.

    Raises:
        ConfigError: where there is nothing, or a pattern of names matches nothing.
    """
    if isinstance(params, Tensor):
        raise ConfigError("params is a single tensor, but must be a list of them; write [parameter].")
    if isinstance(params, nn.Module):
        kinds = renamed(kinds_of(params), names(config.kinds))
        given: list[Any] = [*parts_of({"params": params.named_parameters()}, kinds)]
    else:
        given = [*params]
        if config.is_by_kind and given:
            given = split(given, config)
    if not given:
        raise ConfigError("the parameter list is empty; pass model.parameters() of a model that has some.")
    return given


def split(given: list[Any], config: Config, *, partly: bool = False) -> list[Group]:
    """The groups that are given, each split by kind where it has none; a list of parameters is a group.

    Args:
        given: groups, or parameters, with names or without.
        config: whose patterns of names count.
        partly: whether there are more groups elsewhere, so that a pattern may match nothing here.
    """
    groups = [*map(dict, given)] if isinstance(given[0], dict) else [{"params": given}]
    for group in groups:
        own = group["params"]
        group["params"] = [own] if isinstance(own, Tensor) else [*own]
    members = [member for group in groups if group.get("kind") is None for member in group["params"]]
    kinds = {member[0]: kind_of(member[1]) for member in members if isinstance(member, tuple)}
    kinds = renamed(kinds, names(config.kinds), partly=partly)
    return [part for group in groups for part in ([group] if group.get("kind") else parts_of(group, kinds))]


def parts_of(group: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[Group]:
    """A group as one for each kind of its parameters: by name, or else by shape."""
    members: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for member in group["params"]:
        members[kinds[member[0]] if isinstance(member, tuple) else kind_of(member)].append(member)
    yield from ({**group, "params": some, "kind": kind} for kind, some in members.items() if some)


def with_numbers(group: Group, config: Config, defaults: Mapping[str, Any]) -> Group:
    """A group with the numbers of its kind, where it has none of its own.

    Its own `lr_factor` counts as well. What comes of both is noted in it.
    """
    own, base = config.of(group.get("kind")), defaults["lr"]
    group.setdefault("weight_decay", own.weight_decay)
    group.setdefault("components", chosen(own))
    if "lr" not in group:
        factor = number(group.get("lr_factor", 1.0), "lr_factor of a parameter group")
        factor *= config.kinds.get(group.get("kind") or "", {}).get("lr_factor", 1.0)
        group["lr"] = base if factor == 1 else base * factor
        if "kind" in group or "lr_factor" in group:
            group["lr_factor"] = factor
    return group

"""Layer-wise decay of the learning rate: the further a layer is from the output, the lower is its rate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.kinds import TABLE, kinds_of
from autoranger.components.optimizer.groups import Group

BLOCK = re.compile(r"^(?:[^.]+\.)*?\d+(?=\.)")
"""The outermost numbered module in a parameter's name, such as `blocks.3` in `blocks.3.mlp.0.weight`."""


def distances(model: nn.Module) -> dict[str, int]:
    """How many layers lie between each parameter and the output, by its name.

    A layer is a numbered module, the outermost one: `blocks.3`, `layer1.0`. Embeddings, and what comes before the first
    layer, are one layer further down. The head, and what comes after the last layer, are one further up (Bao et al.
    2021, arXiv 2106.08254, whose code counts like this for vision transformers).

    >>> distances(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 9, bias=False)))
    {'0.weight': 2, '1.weight': 1, '2.weight': 0}

    Raises:
        ConfigError: if no module of the model is numbered.
    """
    kinds, owner = kinds_of(model), owners(model)
    ends = {owner[name]: kind for name, kind in kinds.items() if kind in ("embedding", "head")}
    blocks = {name: match[0] for name in kinds if owner[name] not in ends and (match := BLOCK.match(name))}
    order = {block: place for place, block in enumerate(dict.fromkeys(blocks.values()), start=1)}
    if not order:
        raise ConfigError("layer_decay needs numbered layers, such as those of a Sequential; this model has none.")
    top, reached, found = len(order) + 1, 0, dict[str, int]()
    for name in kinds:
        reached = order[blocks[name]] if name in blocks else top if reached else 0
        own = reached
        if owner[name] == name and name not in blocks:  # torch lists a container's own first, wherever they act
            own = 0 if TABLE.search(name.rpartition(".")[2]) else top
        found[name] = top - {"embedding": 0, "head": top}.get(ends.get(owner[name], ""), own)
    return found


def owners(model: nn.Module) -> dict[str, str]:
    """The module that each parameter belongs to, by its name; of a module with others in it, the parameter itself."""
    alone = {path for path, module in model.named_modules() if not any(module.children())}
    modules = {name: name.rpartition(".")[0] for name, _ in model.named_parameters()}
    return {name: module if module in alone and module else name for name, module in modules.items()}


def by_layer(groups: Iterable[Any], model: nn.Module, decay: object) -> list[Group]:
    """Parameter groups of a model, each split by layer, with rates that fall from the output on.

    Args:
        groups: of parameters with their names.
        model: that they are of.
        decay: factor between a layer's rate and that of the layer above, above 0 and at most 1.

    Raises:
        ConfigError: if `decay` is none, or the model has no layers.
    """
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay <= 1:
        raise ConfigError(f"layer_decay is {decay!r}, but must be a factor above 0 and at most 1.")
    found, away = list[Group](), distances(model)
    for group in groups:
        layers: dict[int, list[Any]] = {}
        for member in group["params"]:
            layers.setdefault(away[member[0]], []).append(member)
        found += [part(group, members, decay**distance) for distance, members in sorted(layers.items())]
    return found


def part(group: Mapping[str, Any], members: list[Any], factor: float) -> Group:
    """The part of a group in one layer, whose rate is multiplied by a factor."""
    if factor == 1:
        return {**group, "params": members}
    laws = {**group.get("laws", {}), "layer": factor}
    return {**group, "params": members, "lr_factor": group.get("lr_factor", 1.0) * factor, "laws": laws}

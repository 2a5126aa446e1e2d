"""How parameters become stacks, and stacks parameters again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from autoranger.components.core.private import copy_each
from autoranger.components.core.rows import by_rows, from_rows, row_shape
from autoranger.components.core.shards import Shards
from autoranger.components.optimizer.groups import Group
from autoranger.components.optimizer.tensors import share

STACKED_BELOW = 1 << 16
"""Tensors of fewer numbers are stacked with others of their shape: they cost calls, larger ones cost memory traffic."""


def stackable(params: list[Tensor], transposed: Mapping[Tensor, int]) -> list[list[Tensor]]:
    """Parameters grouped for stacking: small ones by what they are, large or special ones alone, no empty ones.

    All processes that hold a part of a tensor agree on that, also those whose part is empty.
    """
    stacks: dict[object, list[Tensor]] = defaultdict(list)
    for p in params:
        if p.numel():
            conv_groups = transposed.get(p, 0)
            shards = Shards.of(p, conv_groups)
            small = p.numel() < STACKED_BELOW and (shards is not None or type(p) in (Tensor, Parameter))
            stacks[(p.shape, p.dtype, conv_groups, shards) if small else id(p)].append(p)
    return list(stacks.values())


def gather(members: list[Tensor], conv_groups: int = 0, shards: Shards | None = None) -> Tensor:
    """The stack `[1, B, R, C]` of equal-shaped tensors: a view where there is one contiguous tensor, else a copy.

    Where they are spread over processes, the members are what is here of them.
    """
    shape = members[0].shape
    rows = shards.row_shape(shape) if shards else row_shape(shape, conv_groups)
    if len(members) == 1:
        return by_rows(members[0].detach(), conv_groups).reshape(1, 1, *rows)
    return by_rows(torch.stack(members).detach(), conv_groups, lead=1).reshape(1, len(members), *rows)


def scatter(theta: Tensor, members: list[Tensor], conv_groups: int = 0) -> None:
    """Writes a stack back into the tensors that it was gathered from; nothing where it is a view of them."""
    if share(theta, members[0]):
        return
    shape = members[0].shape
    if conv_groups:
        values = [from_rows(x, shape, conv_groups).reshape(shape) for x in theta[0]]
    else:
        values = [*theta.view(len(members), *shape)]
    if len(members) == 1:  # it may be of a subclass, and not know how to copy several at once
        members[0].copy_(values[0])
    else:
        copy_each(members, values)


def membership(groups: list[Group]) -> list[list[int]]:
    """Which parameters are in which group."""
    return [[*map(id, group["params"])] for group in groups]

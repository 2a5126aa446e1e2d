"""Sums over all tensors of a model, in whatever process they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.chain import Link
from autoranger.components.core.component import Component, Signals
from autoranger.components.core.stack import Stack
from autoranger.components.core.sums import together


def collect(
    heads: Sequence[Link | None],
    signals: Mapping[int, Signals],
    scalars: Signals,
    stacks: Sequence[Stack],
    masks: Sequence[Tensor | None],
    partners: Any,
) -> list[Tensor]:
    """What the component that begins a sweep `collect`s in all stacks together, `[K, 1, 1, 1]` each; else nothing.

    Args:
        heads: that component, in each chain where it is on.
        signals: of each stack that has a gradient.
        scalars: those that all stacks have in common.
        stacks, masks: all stacks, and which of their tensors count.
        partners: the processes that hold the other parameters of the model; None where this one knows them all.
    """
    links: dict[int, Link] = {}
    for i in signals:  # not in a comprehension, whose variables torch.compile cannot follow
        link = heads[stacks[i].chain]
        if link is not None:
            links[i] = link
    found = together({i: partial(link.component.collect, signals[i]) for i, link in links.items()}, stacks)
    parts = []
    for i, link in links.items():
        counts = [mask for mask in (masks[i], link.component.switch if link.gated else None) if mask is not None]
        parts.append([reduce(lambda x, mask: torch.where(mask, x, 0.0), counts, x).sum(dim=1) for x in found[i]])
    totals = [torch.stack(part).sum(dim=0)[:, None] for part in zip(*parts, strict=True)]
    head = next(filter(None, heads), None)
    if head is None or partners is None:
        return totals
    return add_among(totals or nothing(head.component, scalars), partners)


def nothing(component: Component, scalars: Signals) -> list[Tensor]:
    """What a process without a gradient has to add: a zero for each number that the component collects."""
    zero = torch.zeros_like(scalars.lr[:, :1])
    own = {name: zero for name, value in zip(Signals._fields, scalars, strict=True) if torch.is_tensor(value)}
    return [zero.clone() for _ in component.collect(scalars._replace(**own))]  # type: ignore[arg-type]


def add_among(totals: Sequence[Tensor], partners: Any) -> list[Tensor]:
    """Sums over processes, in one collective."""
    from torch.distributed import all_reduce

    stacked = torch.stack([*totals])
    all_reduce(stacked, group=partners)
    return [*stacked.unbind()]

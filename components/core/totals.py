"""Sums over all tensors of a model, in whatever process they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Signals
from autoranger.components.core.stack import Stack
from autoranger.components.core.sums import together


def collect(
    component: Component,
    signals: Mapping[int, Signals],
    scalars: Signals,
    stacks: Sequence[Stack],
    masks: Sequence[Tensor | None],
    partners: Any,
) -> list[Tensor]:
    """What `component.collect` finds in all stacks together, `[K, 1, 1, 1]` each.

    Args:
        component: whose forward wants to know.
        signals: of each stack that has a gradient.
        scalars: those that all stacks have in common.
        stacks, masks: all stacks, and which of their tensors count.
        partners: the processes that hold the other parameters of the model; None where this one knows them all.
    """
    found = together({i: partial(component.collect, x) for i, x in signals.items()}, stacks)
    parts = []
    for i in signals:
        mask = masks[i]
        parts.append([(part if mask is None else torch.where(mask, part, 0.0)).sum(dim=1) for part in found[i]])
    totals = [torch.stack(part).sum(dim=0)[:, None] for part in zip(*parts, strict=True)]
    return totals if partners is None else add_among(totals or nothing(component, scalars), partners)


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

"""A task's behaviour in a few numbers, so that a search is resumed only with the task that it began with."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.config import Config
from autoranger.search.population import Population

STEPS = 3
"""Training steps: enough to depend on model, initialisation, loss, batches and `augment`."""

SAME = 1e-5
"""Largest relative difference that rounding on another machine may make."""


def fingerprint(population: Population, config: Config) -> dict[str, Any]:
    """Checksums of a task's data, and the loss and metric of a short training of one candidate."""
    judged = copy.copy(population)
    judged.task = copy.copy(population.task)
    judged.task.metric = population.task.loss  # type: ignore[method-assign]
    loss, metric = (float(p.train([config], [0], STEPS)["valid"][0, 0]) for p in (judged, population))
    return {"data": {name: checksum(split) for name, split in population.data.items()}, "loss": loss, "metric": metric}


def checksum(data: Any) -> int:
    """The checksum of all tensors in nested sequences and mappings: their types, shapes and contents."""
    if isinstance(data, Tensor):
        content = data.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        return zlib.crc32(content, zlib.crc32(f"{data.dtype} {tuple(data.shape)}".encode()))
    parts = list(data.values()) if isinstance(data, Mapping) else list(data)
    return zlib.crc32(" ".join(str(checksum(part)) for part in parts).encode())


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What has changed, in words; empty if nothing has."""
    if "code" in now:  # all that is known of a user's own training
        return "" if before.get("code") == now["code"] else "the code of its training"
    others = [f"its {name} data" for name, sum_ in now["data"].items() if before["data"].get(name) != sum_]
    if others:
        return " and ".join(others)
    if not same_number(before["loss"], now["loss"]):
        return "its model, its loss or how it trains"
    return "" if same_number(before["metric"], now["metric"]) else "its metric"


def same_number(one: float | None, other: float | None) -> bool:
    """Whether two numbers are the same to rounding, or both None, as numbers that are not finite are."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=SAME, abs_tol=1e-9)

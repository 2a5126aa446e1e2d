"""What a user's own training is, in messages, plans and evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

FULL = "full"
"""Name of the study's setting that describes a full training."""


@dataclass
class Described:
    """The description of a training function; see `subject.About`.

    Args:
        name: of the function.
        score_name: name of the metric, after "minus" if lower is better.
        lr_range: lowest and highest learning rate to begin with.
        steps: of a full training; known after the first.
        device: on which it trains; known after the first training.
        batch_size: unknown.
    """

    name: str
    score_name: str
    lr_range: tuple[float, float]
    steps: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int | None = None


@dataclass(frozen=True)
class Full:
    """A full training.

    Args:
        steps, seconds: its length.
        shortened: whether trainings can be shortened.
        device: on which it trains.
        metric: name of the metric that it returns.
        scale: what it trains, as in `core.proxy`; empty if that is not known.
        writes: files with weights or arrays that it writes, in the working folder.
    """

    steps: int
    seconds: float
    shortened: bool
    device: str
    metric: str
    scale: Mapping[str, Any] = field(default_factory=dict)
    writes: tuple[str, ...] = ()

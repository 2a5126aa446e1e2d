"""What a search needs to know of a task: data, model, loss, metric, and the length of an honest proxy run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from autoranger.components.errors import ConfigError

Split = tuple[Tensor, Tensor]
"""Inputs `[N, ...]` and targets `[N, ...]` of one part of the data."""


class Task:
    """A problem to tune an optimizer on. Subclass it, fill in `data` and `model`, and override what differs.

    Class attributes (which `__init__` may set to suit the device):
        name: what the command line calls it.
        summary: one line for `autoranger tasks`.
        source: where the data come from, and their license.
        metric_name: what `metric` is; higher is better.
        batch_size: examples per step.
        steps: length of a proxy run at which candidates are compared in the end.
        survivors: share of the subsets that goes on after the first round of a search, at half of `steps`: how far down
            the best one may be ranked there (studies/09_race_and_verdict measures it). On the safe side where unknown.
        lr_range: lowest and highest learning rate to begin with; the search goes beyond where a leader's best lies on
            the edge.
        full_steps: length of a training to the end, on which to confirm what proxies have found; ten times `steps`
            where None.

    Args:
        device: where the models will be trained; a task may choose a smaller proxy for a CPU, where it is `small`.
        data_dir: where the user keeps data files, if anywhere.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    metric_name: str = "accuracy"
    batch_size: int = 32
    steps: int = 300
    full_steps: int | None = None
    survivors: float = 1 / 3
    lr_range: tuple[float, float] = (1e-3, 1e-1)

    def __init__(self, device: torch.device | str = "cpu", data_dir: Path | None = None) -> None:
        self.device = torch.device(device)
        self.data_dir = data_dir
        self.small = self.device.type == "cpu"

    def full(self) -> Self:
        """This task at its full length. Override it where the full model is a larger one, too."""
        task = copy.copy(self)
        task.steps = self.full_steps or 10 * self.steps
        return task

    def data(self) -> Mapping[str, Split]:
        """The splits `train`, `valid` and `test`, the same in every call. DataError where files are missing."""
        raise ConfigError(f"{type(self).__name__}.data is missing: return train, valid and test splits.")

    def model(self) -> nn.Module:
        """A new model, initialised from torch's global generator."""
        raise ConfigError(f"{type(self).__name__}.model is missing: return a new nn.Module.")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean training loss of a batch, a scalar; cross entropy of `[B, …, classes]` scores and `[B, …]` labels.

        Written out because `cross_entropy` under vmap takes three times as long, a fifth of a small model's step.
        """
        scores: Tensor = output.logsumexp(dim=-1) - output.gather(-1, target[..., None])[..., 0]
        return scores.mean()

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Quality of a batch, a scalar that averages over batches, higher is better; accuracy."""
        return (output.argmax(dim=-1) == target).float().mean()

    def augment(self, inputs: Tensor) -> Tensor:
        """Random changes of a training batch `[B, ...]` of one seed, from torch's global generator; none."""
        return inputs

"""What a search needs to know of a task: data, model, loss, metric, and the length of an honest proxy run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from autoranger.components.core.errors import ConfigError

Split = tuple[Any, Any]
"""Inputs `[N, ...]` and targets `[N, ...]` of one part of the data: tensors, or tuples and dictionaries of them."""

Metric = TypeVar("Metric", bound=Callable[..., Any])


def averages(metric: Metric) -> Metric:
    """Marks a metric as a mean over examples, as accuracy is: batch by batch it is as good as all at once, and faster.

    F1, AUC, R² and the like are none, and need no mark.
    """
    metric.__dict__["averages"] = True
    return metric


def default(task: Task, name: str) -> bool:
    """Whether a task's method of this name is that of the base class."""
    return name not in vars(task) and getattr(type(task), name) is getattr(Task, name)


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

    def data(self) -> Mapping[str, Any]:
        """The splits `train`, `valid` and `test`, the same in every call. DataError where files are missing.

        Each is `(inputs, targets)` of N examples: tensors, arrays, lists or frames of numbers. Several inputs are a
        tuple, which the model gets as arguments, or a dictionary, which it gets as keyword arguments where they are
        called so, else as it is. A map-style `torch.utils.data.Dataset` of pairs, or a loader of one, is read once.
        """
        raise ConfigError(f"{type(self).__name__}.data is missing: return train, valid and test splits.")

    def model(self) -> nn.Module:
        """A new model in every call, initialised from the global generators of torch, NumPy or Python.

        `loss` and `metric` may use it, as in a penalty on its weights, where it is kept as an attribute of the task.
        """
        raise ConfigError(f"{type(self).__name__}.model is missing: return a new nn.Module.")

    def loss(self, output: Any, target: Any) -> Tensor:
        """Mean training loss of a batch, a scalar; cross entropy of `[B, …, classes]` scores and `[B, …]` labels.

        Written out because `cross_entropy` under vmap takes three times as long, a fifth of a small model's step.
        """
        scores: Tensor = output.logsumexp(dim=-1) - output.gather(-1, target[..., None].long())[..., 0]
        return scores.mean()

    @averages
    def metric(self, output: Any, target: Any) -> Any:
        """Quality of the outputs for a whole split, one number, higher is better; accuracy.

        It gets all outputs of one candidate at once, and may compute with NumPy or scikit-learn.
        """
        return (output.argmax(dim=-1) == target).float().mean()

    def augment(self, inputs: Any) -> Any:
        """Random changes of a training batch of one seed, from the global generators; none."""
        return inputs

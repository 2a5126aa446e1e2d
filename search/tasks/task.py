"""The base class of tasks: data, model, loss, metric, and the length of a proxy run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from autoranger.components.core.errors import ConfigError
from autoranger.search.direction import Direction, score_name

Split = tuple[Any, Any]
"""Inputs `[N, ...]` and targets `[N, ...]` of one part of the data: tensors, or tuples and dictionaries of them."""

Metric = TypeVar("Metric", bound=Callable[..., Any])


def averages(metric: Metric) -> Metric:
    """Marks a metric as a mean over examples, so that it can be computed batch by batch, which is faster.

    Accuracy is one. F1, AUC, R² and the like are not, and need no mark.
    """
    metric.__dict__["averages"] = True
    return metric


@dataclass(frozen=True)
class Origin:
    """Where a task has come from, so that other processes can have the same: the arguments of `tasks.create`."""

    spec: str
    device: str
    data_dir: Path | None = None


def scaled(width: int, scale: float, multiple: int = 1) -> int:
    """A width times a scale, as a multiple of a number, from which there is one at least."""
    return multiple * max(1, round(width * scale / multiple))


def default(task: Task, name: str) -> bool:
    """Whether a task inherits the method of this name from the base class."""
    return name not in vars(task) and getattr(type(task), name) is getattr(Task, name)


class Task:
    """A problem to tune an optimizer on. Subclass it, fill in `data` and `model`, and override what differs.

    >>> class Halves(Task):
    ...     name = "halves"
    ...
    ...     def data(self):
    ...         x = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    ...         y = (x[:, 0] > 0.5).long()
    ...         return {"train": (x[:100], y[:100]), "valid": (x[100:200], y[100:200]), "test": (x[200:], y[200:])}
    ...
    ...     def model(self):
    ...         return nn.Linear(2, 2)
    >>> task = Halves()
    >>> inputs, targets = task.data()["valid"]
    >>> bool(task.metric(task.model()(inputs), targets) >= 0)
    True

    `__init__` may set attributes to suit the device.

    Attributes:
        name: what the command line calls it.
        summary: one line for `autoranger tasks`.
        source: where the data come from, and their license.
        metric_name: name of the metric.
        direction: of the metric: "maximize" or "minimize". Default: "maximize"; it must be given if the name says that
            lower is better, as of a loss.
        batch_size: examples per step. Default: that of the loader of the training data, if there is one; otherwise 32.
        steps: length of a proxy run at which candidates are compared in the end.
        survivors: share of the subsets that goes on after the first round of a search, which has half of `steps`. The
            default is on the safe side; studies/09_race_and_verdict measures it.
        lr_range: lowest and highest learning rate to begin with; the search goes beyond it if a leader's best rate lies
            on the edge.
        full_steps: length of a full training, for `compare --full`; ten times `steps` if None.
        resplit: whether each seed divides the training and validation data anew, at random, into parts of the same
            sizes, and with the same share of each class where targets are `[N]`. With few validation examples a search
            without it finds what suits just these, however many seeds it takes. Leave it off where examples depend on
            each other (time series, several of one patient), or where training and validation data were not prepared
            alike. Default: False.

    Args:
        device: on which models will be trained. A task may choose a smaller proxy for a CPU, where `small` is True.
        data_dir: the user's folder of data files; None if there is none.
    """

    name: str = ""
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    metric_name: str = "accuracy"
    direction: Direction | None = None
    batch_size: int = 32
    steps: int = 300
    full_steps: int | None = None
    resplit: bool = False
    survivors: float = 1 / 3
    lr_range: tuple[float, float] = (1e-3, 1e-1)
    origin: Origin | None = None

    def __init__(self, device: torch.device | str = "cpu", data_dir: Path | None = None) -> None:
        self.device = torch.device(device)
        self.data_dir = data_dir
        self.small = self.device.type == "cpu"

    @property
    def score_name(self) -> str:
        """Name of the score, which is the metric or, if lower is better, minus the metric."""
        return score_name(self.metric_name, self.direction)

    def full(self) -> Self:
        """This task at its full length. Override it if the full model is a larger one."""
        task = copy.copy(self)
        task.steps = self.full_steps or 10 * self.steps
        return task

    def data(self) -> Mapping[str, Any]:
        """The splits `train`, `valid` and `test`, the same in every call. Raises DataError if files are missing.

        Each is `(inputs, targets)` of N examples: tensors, arrays, lists or frames of numbers. Several inputs are a
        tuple, passed to the model as arguments, or a dictionary, passed as keyword arguments if the model has arguments
        of these names, otherwise as one argument. A dictionary with the targets in it calls them "labels" or "targets".
        A map-style `torch.utils.data.Dataset` of such items, or a loader of one, is read once.
        """
        raise ConfigError(f"{type(self).__name__}.data is missing: return train, valid and test splits.")

    def model(self) -> nn.Module:
        """A new model in every call, initialised from the global generators of torch, NumPy or Python.

        With an argument `scale` it makes wider ones as well, for `autoranger transfer --scale`: scale=1.0 is the proxy.

        `loss` and `metric` may use it, for a penalty on its weights, if it is kept as an attribute of the task.
        """
        raise ConfigError(f"{type(self).__name__}.model is missing: return a new nn.Module.")

    def loss(self, output: Any, target: Any) -> Tensor:
        """Mean training loss of a batch, a scalar. Default: cross entropy of scores `[B, …, classes]`, labels `[B, …]`.

        It is written out because `cross_entropy` under vmap takes three times as long, a fifth of a small model's step.
        """
        scores: Tensor = output.logsumexp(dim=-1) - output.gather(-1, target[..., None].long())[..., 0]
        return scores.mean()

    @averages
    def metric(self, output: Any, target: Any) -> Any:
        """Quality of the outputs for a whole split: one number, higher is better unless `direction` says otherwise.

        Default: accuracy.

        It gets all outputs of one candidate at once, and may use NumPy or scikit-learn.
        """
        return (output.argmax(dim=-1) == target).float().mean()

    def augment(self, inputs: Any) -> Any:
        """Randomly changes a training batch of one seed, by the global generators. Default: no change."""
        return inputs

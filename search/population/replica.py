"""A task with a model of its own, as an ordinary training loop has them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autoranger.components.core.errors import ConfigError, DataError
from autoranger.search.direction import sign_of
from autoranger.search.population.precision import mixed, upcast
from autoranger.search.tasks.task import Task
from autoranger.search.tasks.words import about, reason
from autoranger.search.vectorization import Tensors, Tree


class Replica(nn.Module):
    """A copy of a task, and a model that this copy has made.

    A loss that uses the task's model, for a penalty on its weights, uses this one. `forward` calls any method, so that
    `torch.func.functional_call` replaces the weights for the loss and the metric, too.

    Args:
        task: is copied, without its data.
        precision: of the model; see `Population`.
        pulse: called before every pass through the model.
    """

    def __init__(self, task: Task, precision: torch.dtype | None, pulse: Callable[[], None]) -> None:
        super().__init__()
        self.pulse, self.precision = pulse, precision
        self.held = (copy.copy(task),)  # in a tuple, should it be a module itself
        try:
            model = self.task.model()
        except (ConfigError, DataError):
            raise
        except Exception as error:
            raise ConfigError(f"{about(task)}: its model cannot be made ({reason(error)}).") from error
        if not isinstance(model, nn.Module):
            raise ConfigError(f"{about(task)}: its model is a {type(model).__name__}; return a new nn.Module.")
        self.model = model.to(task.device)
        self.trained = {name: p for name, p in self.named_parameters() if p.requires_grad}

    @property
    def task(self) -> Task:
        """The copy of the task."""
        return self.held[0]

    def weights(self) -> tuple[Tensors, Tensors]:
        """The trained parameters, and everything else in the model that may differ between seeds."""
        params = {name: p.detach() for name, p in self.trained.items()}
        frozen = {name: p.detach() for name, p in self.named_parameters() if not p.requires_grad}
        return params, frozen | dict(self.named_buffers())

    def forward(self, method: Callable[..., Any], *args: Any) -> Any:
        """Calls `method(self, *args)`; the methods are those below."""
        return method(self, *args)

    def output(self, inputs: Tree) -> Tree:
        """The model's output. Several inputs are arguments, passed by name if the model knows their names."""
        self.pulse()
        with mixed(self.task.device, self.precision):
            if isinstance(inputs, tuple):
                output = self.model(*inputs)
            elif isinstance(inputs, Mapping) and knows(self.model.forward, inputs):
                output = self.model(**inputs)
            else:
                output = self.model(inputs)
        return upcast(output, self.precision)

    def loss(self, inputs: Tree, targets: Tree) -> Tensor:
        """The task's loss of a batch, a scalar."""
        loss = self.task.loss(self.output(inputs), targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ConfigError(f"{about(self.task)}: loss must return a scalar, the mean over the batch.")
        return loss.reshape(())

    def metric(self, output: Tree, targets: Tree) -> Any:
        """The task's score of outputs, one number: the metric, times −1 if lower is better."""
        metric = self.task.metric(output, targets)
        if getattr(metric, "size", 1) != 1 and getattr(metric, "numel", lambda: 2)() != 1:
            raise ConfigError(f"{about(self.task)}: metric must return one number for all outputs, not one for each.")
        return sign_of(self.task.direction) * (metric.reshape(()) if isinstance(metric, Tensor) else metric)

    def quality(self, inputs: Tree, targets: Tree) -> Any:
        """The task's score of a batch."""
        return self.metric(self.output(inputs), targets)


def knows(call: Callable[..., Any], names: Mapping[str, Any]) -> bool:
    """Whether a function takes arguments of these names."""
    try:
        inspect.signature(call).bind(**names)
    except (TypeError, ValueError):
        return False
    return True

"""The schedule among an optimizer's components, for training loops that want a scheduler beside the optimizer."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.step import require_total_steps
from autoranger.components.optimizer.optimizer import ComposedOptimizer


class OwnSchedule(LRScheduler):
    """An optimizer's own schedule as an `LRScheduler`: it leaves `lr` alone, and tells the rate in effect.

    Hugging Face's Trainer, Accelerate and others want a scheduler, make one that multiplies with the components where
    they are given none, and log what it says.

    >>> from autoranger import Ranger21
    >>> optimizer = Ranger21(torch.nn.Linear(2, 1).parameters(), lr=0.1, total_steps=100)
    >>> scheduler = OwnSchedule(optimizer)
    >>> scheduler.get_lr(), scheduler.get_last_lr() != scheduler.get_lr()
    ([0.1], True)

    Args:
        optimizer: whose components are the schedule; it may be wrapped, as by Accelerate and Lightning.
        total_steps: of the training, where that was not known when the optimizer was built; set in all its groups.

    Raises:
        ConfigError: (a ValueError) where it is not one of autoranger's, or `total_steps` is no length.
    """

    optimizer: ComposedOptimizer

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None) -> None:
        inner: Any = optimizer
        while not isinstance(inner, ComposedOptimizer):
            if not hasattr(inner, "optimizer"):
                raise ConfigError(f"{type(inner).__name__} has no schedule of its own; use one of torch's for it.")
            inner = inner.optimizer
        if total_steps is not None:
            require_total_steps([inner.config], total_steps)
            for group in inner.param_groups:
                group["total_steps"] = total_steps
        super().__init__(inner)

    def get_lr(self) -> list[Any]:
        """The base rates, as they are."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[Any]:
        """The learning rate of the latest step for each group, the schedules' factor included."""
        return self.optimizer.get_last_lr()

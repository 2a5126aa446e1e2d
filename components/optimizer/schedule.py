"""The schedule among an optimizer's components, for training loops that want a scheduler beside the optimizer."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from autoranger.components.core.errors import ConfigError
from autoranger.components.optimizer.optimizer import ComposedOptimizer


class OwnSchedule(LRScheduler):
    """An optimizer's own schedule as an `LRScheduler`: it leaves `lr` alone, and tells the rate in effect.

    Hugging Face's Trainer, Accelerate and others want a scheduler, make one that multiplies with the components where
    they are given none, and log what it says.

    Args:
        optimizer: whose components are the schedule.

    Raises:
        ConfigError: (a ValueError) where it is not one of autoranger's.
    """

    optimizer: ComposedOptimizer

    def __init__(self, optimizer: ComposedOptimizer) -> None:
        if not isinstance(optimizer, ComposedOptimizer):
            raise ConfigError(f"{type(optimizer).__name__} has no schedule of its own; use one of torch's for it.")
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        """The base rates, as they are."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[Any]:
        """The learning rate of the latest step for each group, the schedules' factor included."""
        return self.optimizer.get_last_lr()

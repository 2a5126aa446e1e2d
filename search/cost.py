"""Costs of a config's optimizer: memory of its state, or time of its step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from autoranger.components.core.chain import state_per_number
from autoranger.components.core.config import Config
from autoranger.search.race.baselines import families
from autoranger.search.space import Space
from autoranger.search.tasks.task import Task
from autoranger.search.timing import take_turns
from autoranger.search.vectorization import forked

ROUNDS = 30
"""Steps of each optimizer that are timed."""


@dataclass(frozen=True)
class Cost:
    """A cost of configs.

    Args:
        name: with its unit.
        of: the cost of a config.
    """

    name: str
    of: Callable[[Config], float]


def memory() -> Cost:
    """The cost in memory; see `state_per_number`."""
    return Cost("numbers of state per parameter", state_per_number)


def step_time(task: Task, space: Space) -> Cost:
    """The cost in time: milliseconds of a step on a task's proxy model, on its device.

    When the first cost is asked for, AdamW and AdamW with each component of the space and of the baselines step in
    turns; another measurement will differ a little. The cost of a subset is AdamW's plus what each of its components
    adds, which is too high where components share passes over memory.
    """

    @cache
    def measured() -> tuple[float, dict[str, float]]:
        with forked(task.device):
            params = [p for p in task.model().to(task.device).parameters() if p.requires_grad]
            for p in params:
                p.grad = 1e-3 * torch.randn_like(p)
        baselines = [arm for family in families(space).values() for arm in family]
        names = dict.fromkeys([*space.components, *(name for arm in baselines for name in arm.components)])
        arms = {"": space.plain} | {name: space.arm([name]) for name in names}
        optimizers = {name: arm.build(params, 1_000_000) for name, arm in arms.items()}
        seconds = take_turns(optimizers, params, ROUNDS)
        plain = seconds[""]
        # Differences within a round, so that a slow moment of the machine drops out.
        extra = {name: float(np.median(seconds[name] - plain)) for name in names}
        return float(np.median(plain)), extra

    def milliseconds(config: Config) -> float:
        base, extra = measured()
        return 1000 * (base + sum(max(0.0, extra[name]) for name in config.components))

    return Cost("ms a step", milliseconds)

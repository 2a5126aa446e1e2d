"""What a search maximises: the task's metric, minus its loss, or minus the steps to a target."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.arrays import Values
from autoranger.search.direction import sign_of
from autoranger.search.population.population import Scores
from autoranger.search.race.trainer import CurveTrainer
from autoranger.search.tasks.task import Task

METRIC = "metric"
"""The default objective: the task's metric at the end of a training."""

LOSS = "loss"
"""The objective of a low loss at the end of a training."""

POINTS = 20
"""Points of the validation curve from which steps to a target are interpolated."""


class Reaching:
    """A population whose validation score is minus the steps that a training takes to a target.

    A run that does not reach the target counts as its whole length times 1 plus its relative distance to the target, so
    that runs too short for the target still differ. Other splits are scored by the metric at the end.

    Args:
        population: trains the candidates.
        target: value of the task's score, higher is better.
    """

    def __init__(self, population: CurveTrainer, target: float) -> None:
        self.population, self.target = population, target
        self.best = -np.inf

    @property
    def failures(self) -> Mapping[Config, str]:
        """Why candidates have failed."""
        return self.population.failures

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        curve: int = 0,
        report: Callable[[list[Config], Scores], None] = lambda configs, scores: None,
        **unchanged: Any,
    ) -> Scores:
        """See `Population.train`, which gets all other arguments unchanged."""

        def converted(scores: Scores) -> Scores:
            self.best = max(self.best, np.max(scores["curve"], where=np.isfinite(scores["curve"]), initial=-np.inf))
            others = {name: scores[name] for name in splits if name != "valid"}
            return {"valid": -steps_to(self.target, scores["curve"], steps)} | others

        trained = self.population.train(
            configs,
            seeds,
            steps,
            splits=[split for split in splits if split != "valid"],
            curve=min(POINTS, steps),
            report=lambda part, scores: report(part, converted(scores)),
            **unchanged,
        )
        return converted(trained)

    def check(self) -> None:
        """Raises ConfigError if no training has reached the target, so that there is nothing to compare."""
        if self.best < self.target:
            sign = sign_of(self.population.task.direction)
            raise ConfigError(
                f"no training reached {sign * self.target:g}; the best came to {sign * self.best:.4g}. Name a value in "
                "the objective that is easier to reach."
            )


def steps_to(target: float, curves: Values, steps: int) -> Values:
    """Steps `[K, S]` until curves `[K, S, P]`, evenly spaced over `steps`, reach a target; NaN if a run diverged."""
    points = curves.shape[-1]
    reached = curves >= target
    first = reached.argmax(axis=-1)
    value = np.take_along_axis(curves, first[..., None], axis=-1)[..., 0]
    before = np.take_along_axis(curves, np.maximum(first - 1, 0)[..., None], axis=-1)[..., 0]
    # Between two looks the curve is straight; before the first one nothing is known of it.
    part = np.where(first > 0, (target - before) / np.where(value > before, value - before, 1.0), 1.0)
    missing = (target - np.nanmax(np.where(np.isnan(curves), -np.inf, curves), axis=-1)) / (abs(target) or 1.0)
    taken = np.where(reached.any(axis=-1), (first + part) / points, 1 + missing) * steps
    found: Values = np.where(np.isnan(curves[..., -1]), np.nan, taken)
    return found


def with_objective(task: Task, objective: str) -> tuple[Task, Callable[[CurveTrainer], CurveTrainer | Reaching]]:
    """The task with the objective as its metric, and a function that makes its population train for it.

    Args:
        task: of the search.
        objective: `metric`, `loss`, or `steps:0.95` for the steps to that value of the metric.

    Raises:
        ConfigError: for any other objective.
    """
    name, _, target = objective.partition(":")
    changed = copy.copy(task)
    if objective == METRIC:
        return task, lambda population: population
    if objective == LOSS:

        def loss(self: Task, output: Any, target: Any) -> Any:
            return self.loss(output, target)

        changed.__class__ = changed_kind(task, metric=loss)
        changed.metric_name, changed.direction = "loss", "minimize"
        return changed, lambda population: population
    try:
        reach = float(target)
    except ValueError:
        reach = float("nan")
    if name != "steps" or not np.isfinite(reach):
        raise ConfigError(
            f"objective is '{objective}', but must be metric, loss, or steps:VALUE for the steps to a value of the "
            "metric, as in steps:0.95."
        )
    changed.__class__ = changed_kind(task, score_name=f"minus steps to {task.metric_name} {reach:g}")
    return changed, lambda population: Reaching(population, sign_of(task.direction) * reach)


def changed_kind(task: Task, **members: Any) -> type[Task]:
    """A subclass of the task's class with other members, whose methods know the task that they are called on."""
    kind = type(task)
    return type(kind.__name__, (kind,), {"__module__": kind.__module__} | members)

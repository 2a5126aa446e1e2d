"""Checks of finished trainings: schedules of the wrong length, and a metric that training makes worse."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.tune.training import Result
from autoranger.search.tune.trial import Job

TELLING = 8
"""So many trainings, all worse than no training, mean that the direction is wrong."""

FALLING = 3
"""So many trainings, in all of which the reported metric falls, mean that lower is better."""

TOO_LONG = 1.5
"""A shortened training is warned if its schedule is longer than it should be by more than this factor."""

EARLY, MANY = 0.9, 16
"""A warning is due if most of the first so many trainings of full length end before this share of their steps."""


class Sanity:
    """Checks trainings as they finish.

    Args:
        name: of the function.
        sign: 1 if higher is better, -1 if lower is.
        given: whether the user has said which.

    Attributes:
        untrained: the metric, higher is better, of a model that has not been trained; -inf if it is not known, or once
            a training is better.
    """

    def __init__(self, name: str, sign: int, *, given: bool) -> None:
        self.name, self.sign, self.untrained = name, sign, -np.inf
        self._worse, self._fell, self._said = 0, 0, set[str]()
        self._full, self._early = 0, 0
        self._unsure = not given

    def look(self, job: Job, result: Result, value: float, steps: int) -> None:
        """Warns of schedules of the wrong length; raises ConfigError if training makes the metric worse.

        Args:
            job, result: of a training that has not failed.
            value: its metric, higher is better.
            steps: of a full training; 0 if not yet known.
        """
        total = result.total_steps or 0
        if steps and total > TOO_LONG * job.length * steps:
            self._say(
                "cut off",
                f"builds its optimizer for {total} steps in a training of {job.length:g} of the full length, which has "
                f"{steps}: schedules are cut off. Make total_steps the number of steps that it trains.",
            )
        if 0 < total < result.steps:
            self._say(
                "overrun",
                f"makes {result.steps} steps with an optimizer that is built for {total}: schedules have ended before. "
                "Make total_steps the number of steps that it trains.",
            )
        if job.length == 1:
            self._full += 1
            self._early += result.steps < EARLY * total
        if self._full == MANY and 2 * self._early > MANY:
            self._say(
                "early",
                f"ends before its total_steps in {self._early} of {MANY} trainings. A schedule gains much "
                "at its end, so stop early with more patience, or not at all, in the search and in the real training.",
            )
        self._look_at_reports(result, self.sign * value)
        if value >= self.untrained:
            self.untrained = -np.inf
        self._worse += bool(np.isfinite(self.untrained))
        if self._worse >= TELLING:
            other = "minimize" if self.sign > 0 else "maximize"
            raise ConfigError(
                f"{self.name}: all of {self._worse} trainings end with a worse metric than the "
                f'{self.sign * self.untrained:.4g} of an untrained model; should the direction be "{other}"?'
            )

    def _look_at_reports(self, result: Result, value: float) -> None:
        """Raises ConfigError if no direction is given, and the metric falls in the first trainings that report it."""
        if not self._unsure or not result.reports:
            return
        first, lowest, last = result.reports
        if value not in (lowest, last) or first == last:
            return
        if last > first:
            self._unsure = False
            return
        self._fell += 1
        if self._fell == FALLING:
            raise ConfigError(
                f"{self.name}: the metric falls in each of the first {FALLING} trainings, in the last one from "
                f'{first:.4g} to {last:.4g}; say with direction "minimize" or "maximize" which is better.'
            )

    def _say(self, kind: str, sentence: str) -> None:
        """A warning, once for each kind."""
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(f"{self.name} {sentence}", stacklevel=2)


def unable(name: str, tried: Sequence[Config], results: Sequence[Result]) -> ConfigError:
    """The error for a function whose first trainings all fail."""
    if not all(result.diverged for result in results):
        failure = next(result.failure for result in results if not result.diverged)
        return ConfigError(f"{name}: the first training fails: {failure}.")
    names = "Ranger21", "AdamW"
    with_ = " and with ".join(f"{default} at lr {c.lr:g}" for default, c, _ in zip(names, tried, results, strict=False))
    return ConfigError(
        f"{name}: {results[-1].failure}, with {with_}; look at the data, the loss and the metric, or "
        "begin with lower rates (--lr-range, or lr_range=…)."
    )

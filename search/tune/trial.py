"""The argument of the user's training function: one candidate, its seed, and its share of the full length."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from autoranger.components.core.config import Compile, Config
from autoranger.components.core.errors import ConfigError
from autoranger.components.core.proxy import proxy_of
from autoranger.components.optimizer.optimizer import ComposedOptimizer

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT

PULSE = 0.5
"""Seconds between the signs of life of a training, about."""


class Diverged(BaseException):
    """Raised by `Trial.report` for NaN and infinity. Not an `Exception`, so that user code does not catch it.

    Args:
        value, step: as reported.
    """

    def __init__(self, value: float, step: int) -> None:
        super().__init__(f"reported {value} at step {step}")


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        config: of the optimizer.
        seed: of all random numbers.
        length: share of a full training, above 0 and at most 1.
    """

    config: Config
    seed: int
    length: float = 1.0

    @property
    def summary(self) -> str:
        """What it is, in words."""
        return f"seed {self.seed}, lr {self.config.lr:g}, {self.length:g} of the full length"

    def to_data(self) -> dict[str, Any]:
        """The job as plain data."""
        return {"config": self.config.to_dict(), "seed": self.seed, "length": self.length}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Job:
        """The job of plain data."""
        return cls(Config.from_dict(data["config"]), data["seed"], data["length"])


class Trial:
    """The argument of a training function.

    >>> def train(trial: Trial) -> float:
    ...     model, steps = nn.Linear(2, 1), max(1, round(10 * trial.length))
    ...     optimizer = trial.build(model, total_steps=steps)
    ...     for step in range(steps):
    ...         loss = model(torch.ones(4, 2)).square().mean()
    ...         optimizer.zero_grad()
    ...         loss.backward()
    ...         optimizer.step()
    ...     trial.report(-loss.item(), steps)
    ...     return -loss.item()
    >>> train(Trial(Job(Config(lr=0.1), seed=0), number=0, tell=lambda told: None)) <= 0
    True

    Args:
        job: what to train.
        number: of the worker process, from 0.
        tell: called with `(step, value)` for each report, and with `None` now and then as a sign of life. An exception
            in it ends the training.
        place: folder in which it makes its own; that of the system for temporary files if None, or if it is missing.

    Attributes:
        config: the optimizer's config.
        seed: torch, NumPy and Python are seeded with it before the call. Use it for generators of your own, such as
            that of a loader.
    """

    def __init__(
        self, job: Job, number: int, tell: Callable[[tuple[int, float] | None], None], place: str | None = None
    ) -> None:
        self.config, self.seed = job.config, job.seed
        self._number, self._length, self._tell = number, job.length, tell
        self._place = place
        self._folder: TemporaryDirectory[str] | None = None
        self._told = time.monotonic()
        self.shortened, self.apart, self.steps, self._builds = False, False, 0, 0
        self.total_steps: int | None = None
        self.device, self.scale = "", dict[str, Any]()
        self.reports: tuple[float, ...] = ()

    @property
    def length(self) -> float:
        """The share of a full training to do, above 0 and at most 1: train for `round(epochs * trial.length)` epochs.

        If a function never reads it, all its trainings have the full length.
        """
        self.shortened = True
        return self._length

    @property
    def worker(self) -> int:
        """The number of the worker process, from 0. `f"cuda:{trial.worker}"` gives each its own GPU.

        A function that reads it is taken to keep what its trainings write apart.
        """
        self.apart = True
        return self._number

    @property
    def folder(self) -> Path:
        """A folder of this training alone, empty at first, for files such as its best weights.

        It is removed when the training ends; where a worker is killed that is not on this machine, it stays.
        """
        if self._folder is None:
            place = self._place if self._place and os.path.isdir(self._place) else None
            self._folder = TemporaryDirectory(prefix="autoranger-", dir=place, ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def close(self) -> None:
        """Removes its folder. Called when the training has ended."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def build(
        self,
        model: nn.Module | ParamsT,
        total_steps: int | None = None,
        *,
        batch_size: int | None = None,
        examples: int | None = None,
        compile: Compile = "auto",
    ) -> ComposedOptimizer:
        """The candidate's optimizer.

        Validate inside of `with optimizer.evaluation():`, or between `optimizer.eval()` and `optimizer.train()`: the
        weights to evaluate with may be an average of those that are trained.

        Args:
            model: a model, or any other form of parameters that `torch.optim.AdamW` takes.
            total_steps: number of optimizer steps in this training, `trial.length` included. Schedules depend on it.
            batch_size, examples: in a step, and in the training data. They are not needed here: the tuned file notes
                them, so that it can be scaled to a training with others.
            compile: see `Config.build`.

        Raises:
            ConfigError: if `total_steps` is missing, a number is not whole and from 1, or there are no parameters.
        """
        if total_steps is None:
            raise ConfigError(NO_STEPS)
        if isinstance(model, nn.Module) and any(isinstance(p, UninitializedParameter) for p in model.parameters()):
            model = model.parameters()  # whose kinds are not known yet
        optimizer = self.config.build(model, total_steps, batch_size=batch_size, examples=examples, compile=compile)
        self._builds += 1
        self.scale = {}
        if isinstance(model, nn.Module) and self._builds == 1:  # of several models nobody knows which is meant
            with suppress(ZeroDivisionError):  # of layers without outputs
                self.scale = proxy_of(model, batch_size, total_steps, examples)
        self.device = optimizer.param_groups[0]["params"][0].device.type
        self.total_steps = max(total_steps, self.total_steps or 0)
        optimizer.register_step_post_hook(self._stepped)
        return optimizer

    def report(self, value: float, step: int) -> None:
        """Records a metric at a step, with the trial. NaN and infinity end the training, which counts as diverged."""
        number = float(value)
        if not math.isfinite(number):
            raise Diverged(number, int(step))
        first, lowest, _ = self.reports or (number, number, number)
        self.reports = (first, min(lowest, number), number)
        self._told = time.monotonic()
        self._tell((int(step), number))

    def _stepped(self, *_: Any) -> None:
        """Called after each step of an optimizer."""
        self.steps += 1
        if time.monotonic() - self._told > PULSE:
            self._told = time.monotonic()
            self._tell(None)


NO_STEPS = (
    "trial.build needs total_steps, the number of optimizer steps in this training, as in "
    "trial.build(model, total_steps=epochs * len(loader))"
)

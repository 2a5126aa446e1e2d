"""A user's own training as a search sees it: something that trains candidates on seeds, for a share of its length."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError, SearchError
from autoranger.search.clock import Clock, OutOfTime
from autoranger.search.race.objectives import METRIC
from autoranger.search.race.plan import Plan
from autoranger.search.race.trainer import Trained
from autoranger.search.storage.record import FINGERPRINT
from autoranger.search.subject import Seeds, rates
from autoranger.search.tune.plans import STANDARD, plans
from autoranger.search.tune.pool import Runner
from autoranger.search.tune.runs import Direction, Runs
from autoranger.search.tune.training import NOT_BUILT, Result
from autoranger.search.tune.trial import Job

TEST = "test"
"""The name under which a function returns its metric on test data, which decides nothing."""

HALF = 0.5
"""The length of a training in a first round."""

LOOKS = 20
"""A search that has time for so many trainings has time for one more."""

TELLING = 8
"""Trainings, none of them better than none at all, that tell that the direction is wrong."""

TOO_LONG = 1.5
"""How many times as long as asked for a shortened schedule may be before it is said."""


@dataclass
class Described:
    """What is trained, as plans and evidence name it; see `subject.About`.

    Args:
        name: of the function.
        metric_name: with "minus" where lower is better.
        steps: of a full training; known once one has been done.
        device: where it trains; likewise.
    """

    name: str
    metric_name: str
    steps: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Script:
    """A `Subject`, and its own `Trainer`: trains candidates by calling a function, each training one of `runs`.

    Args:
        runner: calls it.
        name: of the function.
        metric: which of the numbers that it returns by name is to get better, the first where None; of a single one, it
            is the name.
        direction: of the metric.
        lr_range: lowest and highest learning rate to begin with.
        code: tells the function from another one.
        open_runs: opens the study of trainings.

    Attributes:
        failures: why candidates have failed.
        pulse: called again and again while something trains. What it raises ends that.
    """

    def __init__(
        self,
        runner: Runner,
        name: str,
        *,
        metric: str | None,
        direction: Direction,
        lr_range: tuple[float, float],
        code: int | None,
        open_runs: Callable[[], Runs],
    ) -> None:
        self.runner, self.metric, self.direction, self.code = runner, metric, direction, code
        self.lrs = rates(name, lr_range)
        self.sign, self.minus = (1, "") if direction == "maximize" else (-1, "minus ")
        self.about = Described(name, self.minus + (metric or "metric"))
        self.failures = dict[Config, str]()
        self.pulse: Callable[[], None] = lambda: None
        self.shortened = False
        self._open_runs = open_runs
        self._untrained, self._compared, self._said = -np.inf, 0, set[str]()

    @property
    def trainer(self) -> Script:
        """See `Subject`."""
        return self

    def identity(self, arm: Config) -> Mapping[str, Any]:
        """See `Subject`."""
        named = {"task": self.about.name, "objective": METRIC, "direction": self.direction, "metric_asked": self.metric}
        return {**named, "lrs": list(self.lrs), FINGERPRINT: {"code": self.code}}

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        progress: Callable[[int], None] = lambda done: None,
        report: Callable[[list[Config], Trained], None] = lambda configs, scores: None,
        among: Sequence[Config] = (),
    ) -> Trained:
        """See `Population.train`; every training is a call. Of the splits there are valid and test."""
        length = round(steps / self.about.steps, 3)
        jobs = [Job(config, seed, length) for config in configs for seed in seeds]
        done = {job: self.runs.known[job] for job in jobs if job in self.runs.known}
        scores = {split: np.full((len(configs), len(seeds)), np.nan) for split in splits}

        def deliver(k: int) -> None:
            """Candidate k, once all of its trainings are done."""
            config = configs[k]
            results = [done.get(Job(config, seed, length)) for seed in seeds]
            if any(result is None for result in results):
                return
            for s, result in enumerate(filter(None, results)):
                for split in splits:
                    scores[split][k, s] = self.value(result, split)
                if result.failure:
                    self.failures[config] = result.failure
            report([config], {split: values[k : k + 1] for split, values in scores.items()})

        place = {config: k for k, config in enumerate(configs)}
        for k in range(len(configs)):
            deliver(k)
        for job, result in self._run([job for job in jobs if job not in done]):
            done[job] = result
            progress(steps)
            deliver(place[job.config])
        return scores

    def value(self, result: Result, split: str = "valid") -> float:
        """A result's metric on a part of the data, higher is better; NaN where there is none."""
        name = TEST if split == TEST else self._valid(result)
        return self.sign * result.metrics.get(name, float("nan"))

    def _valid(self, result: Result) -> str:
        """Under which name a result has its metric."""
        if self.metric in result.metrics:
            return str(self.metric)
        return next((name for name in result.metrics if name != TEST), "")

    def _run(self, jobs: Sequence[Job], *, kept: bool = True) -> Iterator[tuple[Job, Result]]:
        """Does trainings, keeps what comes of them, and yields each with its result."""
        try:
            with closing(self.runner.run(jobs, Heard(self.runs if kept else None, self.pulse))) as trained:
                for job, given in trained:
                    result = self._complete(given)
                    if kept:
                        self.runs.ended(job, result, self.sign * self.value(result))
                        self._look(job, result)
                    yield job, result
        finally:
            self.runs.given_up("interrupted")

    def _complete(self, result: Result) -> Result:
        """The result; failed where the metric asked for is not in it."""
        names = [name for name in result.metrics if name]
        if self.metric and names and self.metric not in names:
            return replace(result, metrics={}, failure=f"it returned no '{self.metric}', but {', '.join(names)}")
        return result

    def calibrate(self, clock: Clock, arms: Sequence[Config], seeds: Seeds) -> None:
        """Trains once at full length: how long that is, in steps and seconds, and whether the function works at all.

        A sweep begins with the same training, which is not done twice.

        Raises:
            ConfigError: where it does not.
            SearchError: where there is no time for it.
        """
        self.pulse, self.runs = clock.check, self._open_runs()
        full = self.runs.full
        if full is None:
            clock.first()
            try:
                with clock.until(clock.end):
                    full = self._first(arms, seeds)
            except OutOfTime:
                raise SearchError(
                    f"in {clock.budget:g} s not one training of {self.about.name} ends, and a search takes tens of "
                    "them: give it a longer --budget, or make the training shorter."
                ) from None
            self.runs.note_full(**full)
        self.about.steps, self.shortened = full["steps"], full["shortened"]
        self.about.device = torch.device(full["device"])
        self.about.metric_name = self.minus + (self.metric or full["metric"] or "metric")
        clock.rate = self.runner.size * self.about.steps / max(full["seconds"], 1e-3)

    def _first(self, arms: Sequence[Config], seeds: Seeds) -> dict[str, Any]:
        """What the first training tells, at a middle rate; another one, where it fails, at the lowest."""
        default, plain = arms
        tried = replace(default, lr=self.lrs[len(self.lrs) // 2]), replace(plain, lr=self.lrs[0])
        results, (seed,) = list[Result](), seeds(1)
        for config in tried:
            results += [result for _, result in self._run([Job(config, seed)])]
            if not results[-1].failure:
                break
        result = max(results, key=lambda r: (not r.failure, r.diverged, r.total_steps or 0, r.seconds))
        if result.failure and not result.diverged:
            raise ConfigError(f"{self.about.name}: the first training fails: {results[0].failure}.")
        if not result.total_steps:
            raise ConfigError(f"{self.about.name}: {NOT_BUILT}, with the number of its steps.")
        return {
            "steps": result.total_steps,
            "seconds": max(r.seconds for r in results),
            "shortened": result.shortened,
            "device": result.device,
            "metric": self._valid(result),
        }

    def check(self, arm: Config, clock: Clock, seeds: Seeds) -> None:
        """Looks at what a model is worth that is not trained, at learning rate 0, to compare trainings with."""
        length = HALF if self.shortened else 1.0
        if clock.budget is not None and LOOKS * self.about.steps > clock.affordable:
            return
        with clock.until(clock.halfway), suppress(OutOfTime):
            for _, result in self._run([Job(replace(arm, lr=0.0), seeds(1)[0], length)], kept=False):
                self._untrained = -np.inf if result.failure else self.value(result)
            clock.advance(round(length * self.about.steps))

    def _look(self, job: Job, result: Result) -> None:
        """Says what is odd about a training; ConfigError where training makes the metric worse."""
        if result.failure:
            return
        total, full = result.total_steps or 0, self.about.steps
        if full and total > TOO_LONG * job.length * full:
            self._say(
                "cut off",
                f"builds its optimizer for {total} steps in a training of {job.length:g} of the full length, which has "
                f"{full}: schedules are cut off. Make total_steps what will be trained.",
            )
        if 0 < total < result.steps:
            self._say(
                "overrun",
                f"makes {result.steps} steps with an optimizer that is built for {total}: schedules have ended before. "
                "Make total_steps what will be trained.",
            )
        if self.value(result) >= self._untrained:
            self._untrained = -np.inf
        self._compared += bool(np.isfinite(self._untrained))
        if self._compared >= TELLING:
            other = "minimize" if self.sign > 0 else "maximize"
            raise ConfigError(
                f"{self.about.name}: {self._compared} trainings have made the metric worse, all that there were, than "
                f'{self.sign * self._untrained:.4g} without training; is the direction to be "{other}"?'
            )

    def _say(self, kind: str, sentence: str) -> None:
        """A warning, once for each kind."""
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(f"{self.about.name} {sentence}", stacklevel=2)

    def plans(self) -> list[Plan]:
        """See `Subject`."""
        return plans(self.about.steps, shortened=self.shortened)

    def standard(self, *, listed: bool) -> Plan:
        """See `Subject`."""
        return self.plans()[STANDARD]


class Heard:
    """Passes on what is heard of trainings; see `Listener`."""

    def __init__(self, runs: Runs | None, pulse: Callable[[], None]) -> None:
        self.runs, self.pulse = runs, pulse

    def begun(self, job: Job) -> None:
        """See `Listener`."""
        if self.runs:
            self.runs.begun(job)

    def reported(self, job: Job, step: int, value: float) -> None:
        """See `Listener`."""
        if self.runs:
            self.runs.reported(job, step, value)

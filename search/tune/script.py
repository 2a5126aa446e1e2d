"""The user's own training as the subject of a search: trains candidates on seeds, for a share of its full length."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from autoranger.components.core.config import Config
from autoranger.components.core.errors import SearchError
from autoranger.search.clock import Clock, OutOfTime
from autoranger.search.direction import Direction, require_direction, score_name, sign_of
from autoranger.search.engine.engine import Engine, Lost
from autoranger.search.population.population import Scores
from autoranger.search.race.objectives import METRIC
from autoranger.search.race.plan import Plan
from autoranger.search.storage.record import FINGERPRINT
from autoranger.search.subject import Seeds, rates
from autoranger.search.tune.about import FULL, Described, Full
from autoranger.search.tune.files import overwritten, written
from autoranger.search.tune.plans import STANDARD, plans
from autoranger.search.tune.runs import Heard, Runs
from autoranger.search.tune.sanity import Sanity, unable
from autoranger.search.tune.training import Result
from autoranger.search.tune.trial import Job

TEST = "test"
"""The name under which a function returns its metric on test data, which decides nothing."""

HALF = 0.5
"""Length of a training in the first round."""

LOOKS = 20
"""An untrained model is looked at only if there is time for so many trainings."""


class Script:
    """A `Subject`, and its own `Trainer`: trains candidates by calling a function, and stores each training in `runs`.

    Args:
        engine: calls the function.
        name: of the function.
        metric: which of the returned numbers to improve; None for the first. If the function returns a single number,
            this is its name.
        direction: of the metric; None for "maximize", unless name or reports suggest that lower is better.
        lr_range: lowest and highest learning rate to begin with.
        code: checksum of the function.
        open_runs: opens the study of trainings.
        full: a full training, if an earlier session has measured one.
        spec: where other machines find the function; None if they cannot.

    Attributes:
        failures: the reasons why candidates have failed.
        pulse: called again and again during trainings. An exception in it ends them.

    Raises:
        ConfigError: if no rate of the grid lies in `lr_range`, or a metric of this name needs a direction.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        metric: str | None,
        direction: Direction | None,
        lr_range: tuple[float, float],
        code: int | None,
        open_runs: Callable[[Direction], Runs],
        full: Full | None = None,
        spec: str | None = None,
    ) -> None:
        self.spec = spec
        self.engine, self.metric, self.code, self._given = engine, metric, code, direction is not None
        require_direction(name, metric or "", direction)
        self.direction: Direction = direction or "maximize"
        self.lrs, self.objective = rates(name, lr_range), METRIC
        self.sign = sign_of(direction)
        self.about = Described(name, score_name(metric or "metric", direction), lr_range)
        self.failures = dict[Config, str]()
        self.pulse: Callable[[], None] = lambda: None
        self._open_runs = open_runs
        self.sanity = Sanity(name, self.sign, given=self._given)
        self.full: Full | None = None
        self._seconds = list[float]()
        """How long trainings took, at full length."""
        if full is not None:
            self.know(full)

    @property
    def shortened(self) -> bool:
        """Whether trainings can be shortened."""
        return self.full is not None and self.full.shortened

    @property
    def trainer(self) -> Script:
        """See `Subject`."""
        return self

    @property
    def learned(self) -> dict[str, Any]:
        """See `Subject`."""
        full = {} if self.full is None else asdict(self.full)
        return {FULL: {name: value for name, value in full.items() if name != "writes" or value} or None}

    @property
    def scale(self) -> dict[str, Any]:
        """See `Subject`: of the first training, if its function has given `trial.build` the model."""
        return {} if self.full is None else dict(self.full.scale)

    @property
    def shared(self) -> int | None:
        """See `Subject`: what a training is scored on is its own affair."""
        return None

    @property
    def origin(self) -> dict[str, str]:
        """See `Subject`."""
        return {} if self.spec is None else {"train": self.spec}

    def identity(self, arm: Config) -> dict[str, Any]:
        """See `Subject`."""
        return {"direction": self.direction, "returned": self.metric, FINGERPRINT: {"code": self.code}}

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        curve: int = 0,
        progress: Callable[[int], None] = lambda done: None,
        report: Callable[[list[Config], Scores], None] = lambda configs, scores: None,
        among: Sequence[Config] = (),
    ) -> Scores:
        """See `Population.train`. Each training is a call of the function. Splits are "valid" and "test"."""
        length = round(steps / self.about.steps, 3)
        jobs = [Job(config, seed, length) for config in configs for seed in seeds]
        done = {job: self.runs.known[job] for job in jobs if job in self.runs.known}
        scores = {split: np.full((len(configs), len(seeds)), np.nan) for split in splits}

        def deliver(k: int) -> None:
            """Reports candidate k, if all of its trainings are done."""
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
        """A result's metric on a split, higher is better; NaN if there is none."""
        name = TEST if split == TEST else self._valid(result)
        return self.sign * result.metrics.get(name, float("nan"))

    def _valid(self, result: Result) -> str:
        """The name of a result's metric on the validation data."""
        if self.metric in result.metrics:
            return str(self.metric)
        return next((name for name in result.metrics if name != TEST), "")

    def _run(self, jobs: Sequence[Job], *, kept: bool = True) -> Iterator[tuple[Job, Result]]:
        """Trains, stores the results if they are `kept`, and yields each training with its result."""
        try:
            while jobs:
                gone = list[Job]()  # with a worker that has left, so that they are trained again
                with closing(self.engine.run(jobs, Heard(self.runs if kept else None, self.pulse))) as trained:
                    for job, found in trained:
                        if isinstance(found, Lost) and found.away:
                            gone.append(job)
                        else:
                            yield job, self._ended(job, found, kept=kept)
                jobs = gone
        finally:
            self.runs.give_up()

    def _ended(self, job: Job, found: Result | Lost, *, kept: bool) -> Result:
        """The result of a training, stored if it is `kept`."""
        given = Result(failure=found.why, seconds=found.seconds) if isinstance(found, Lost) else found
        result = self._complete(given)
        if kept:
            self.runs.ended(job, result, self.sign * self.value(result))
            if not result.failure:
                self._seconds.append(result.seconds / job.length)
                self.sanity.look(job, result, self.value(result), self.about.steps)
        return result

    def _complete(self, result: Result) -> Result:
        """The result, or a failure if it lacks the chosen metric."""
        names = [name for name in result.metrics if name]
        if self.metric and names and self.metric not in names:
            return replace(result, metrics={}, failure=f"it returned no '{self.metric}', but {', '.join(names)}")
        return result

    def calibrate(self, clock: Clock, arms: Sequence[Config], seeds: Seeds) -> None:
        """Trains once at full length, to measure its steps and seconds, and to see whether the function works.

        A sweep includes the same training, and does not repeat it.

        Raises:
            ConfigError: if the function does not work.
            SearchError: if there is no time for it.
        """
        self.pulse, self.runs = clock.check, self._open_runs(self.direction)
        if self.full is None:
            clock.first()
            try:
                with clock.until(clock.end):
                    self.know(self._first(arms, seeds))
            except OutOfTime:
                raise SearchError(
                    f"not one training of {self.about.name} ended within {clock.budget:g} s, and a search takes tens "
                    "of them: give it a longer --budget, or make the training shorter."
                ) from None
        assert self.full is not None
        if self.full.writes and self.engine.size > 1:
            alone = self.engine.exchange() and self.engine.size == 1
            warnings.warn(overwritten(self.full.writes, alone=alone), stacklevel=2)
        clock.rate = self.engine.size * self.full.steps / max(self.full.seconds, 1e-3)

    def know(self, full: Full) -> None:
        """Sets what a full training is."""
        self.full, about = full, self.about
        about.steps, about.device = full.steps, torch.device(full.device)
        about.score_name = score_name(self.metric or full.metric or "metric", self.direction)

    def _first(self, arms: Sequence[Config], seeds: Seeds) -> Full:
        """Measures the first training: Ranger21 at a middle rate or, if that fails, AdamW at the lowest."""
        default, plain = arms
        tried = replace(default, lr=self.lrs[len(self.lrs) // 2]), replace(plain, lr=self.lrs[0])
        results, (seed,), since = list[Result](), seeds(1), time.time()
        for config in tried:
            try:
                results += [result for _, result in self._run([Job(config, seed)])]
            except OutOfTime:
                if results:  # what made the first one fail says more
                    raise unable(self.about.name, tried, results) from None
                raise
            if not results[-1].failure:
                break
        result = next((result for result in results if not result.failure), None)
        if result is None:
            raise unable(self.about.name, tried, results)
        require_direction(self.about.name, self._valid(result), self.direction if self._given else None)
        assert result.total_steps  # `Trial.build` sees to that
        seconds, metric = max(r.seconds for r in results), self._valid(result)
        writes = () if result.apart else written(Path.cwd(), since)
        return Full(result.total_steps, seconds, result.shortened, result.device, metric, result.scale, writes)

    def check(self, arm: Config, clock: Clock, seeds: Seeds) -> None:
        """Measures the metric of an untrained model, by a training at learning rate 0.

        By now it is known how long trainings take once a worker has begun: less than the first one.
        """
        length = HALF if self.shortened else 1.0
        if self._seconds:
            clock.learn(self.engine.size * self.about.steps, max(median(self._seconds), 1e-3))
        if clock.budget is not None and LOOKS * self.about.steps > clock.affordable:
            return
        with clock.until(clock.halfway), suppress(OutOfTime):
            for _, result in self._run([Job(replace(arm, lr=0.0), seeds(1)[0], length)], kept=False):
                self.sanity.untrained = -np.inf if result.failure else self.value(result)
            clock.advance(round(length * self.about.steps))

    def plans(self, most: int) -> list[Plan]:
        """See `Subject`."""
        return plans(self.about.steps, most, shortened=self.shortened)

    def standard(self, most: int) -> Plan:
        """See `Subject`."""
        return self.plans(most)[STANDARD]

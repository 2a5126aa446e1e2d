"""Time and work: how fast a population trains here, whether a budget allows what is planned, and when it is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from autoranger.components.config import Config
from autoranger.search.plan import PROTECTED, Plan, Rung
from autoranger.search.population import Population
from autoranger.search.progress import Progress

SHARE = 0.7
"""The part of a budget that a plan may claim by its estimate: extensions of the grid and the test come on top."""

RACE = 0.9
"""The part of a budget after which nothing more begins but what a verdict needs."""

MEASURING = 0.1
"""The part of a budget in which the speed is measured, at most."""

FEWEST_SEEDS = 8
"""A verdict on fewer seeds could hardly ever tell anything."""

KERNELS = 8
"""Steps that a search compiles, about: some chunks of every round have other components on than those before."""


class OutOfTime(BaseException):
    """The time for what is being trained is over. Like KeyboardInterrupt no error of the model that it comes upon."""


class Clock(Progress):
    """Counts work, in candidate-steps, against a time budget, and passes all that it hears on.

    Args:
        budget: seconds, or None for no limit.
        listener: hears what the clock hears.

    Attributes:
        rate: candidate-steps per second, as measured.
        scoring: steps of a training that take as long as scoring it once.
        setup: seconds before the first step of a chunk unlike those before it: it is compiled.
    """

    def __init__(self, budget: float | None, listener: Progress) -> None:
        self.budget, self.listener = budget, listener
        self.began = time.monotonic()
        self.done, self.counted = 0, 0.0
        self.rounds: list[dict[str, int]] = []
        self.rate, self.scoring, self.setup = 0.0, 0.0, 0.0
        self.started = self.began
        self.deadline = float("inf")

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.began

    @property
    def affordable(self) -> float:
        """Candidate-steps that a plan may claim in the time that is left."""
        return (SHARE * (self.budget or 0.0) - self.elapsed - KERNELS * self.setup) * self.rate

    def needed(self, work: float) -> float:
        """The budget in which a plan of so many candidate-steps from here on would fit."""
        return (self.elapsed + KERNELS * self.setup + work / max(self.rate, 1e-9)) / SHARE

    @property
    def end(self) -> float:
        """Seconds after which the budget is spent; infinity without one."""
        return float("inf") if self.budget is None else self.budget

    @property
    def halfway(self) -> float:
        """Seconds after which half of what is now left is spent."""
        return (self.elapsed + self.end) / 2

    def sweep_seeds(self, rates: int, steps: int) -> int:
        """Two seeds for a sweep of so many rates where they take less than a quarter of what is left, otherwise one."""
        work = rates * (steps + self.scoring)
        return 2 if 2 * work <= (self.end - self.elapsed) / 4 * self.rate else 1

    def needed_to_sweep(self, rates: int, steps: int) -> float:
        """The budget, in whole seconds and not below twice this one, in which a sweep would fit."""
        return max(2 * self.end, math.ceil(2 * rates * (steps + self.scoring) / self.rate))

    @contextmanager
    def until(self, seconds: float) -> Iterator[None]:
        """Within it, `check` raises so many seconds after the search began."""
        before, self.deadline = self.deadline, min(seconds, self.deadline)
        try:
            yield
        finally:
            self.deadline = before

    def check(self) -> None:
        """Called before every pass through a model. OutOfTime where the time for what is being trained is over."""
        if self.elapsed > self.deadline:
            raise OutOfTime

    def calibrate(
        self, population: Population, configs: Sequence[Config], candidates: int = 32, steps: int = 40
    ) -> None:
        """Measures how fast a population trains and is scored, within a tenth of the budget.

        First one candidate for a step, then more for longer: a model that takes a second for a step is known by then.
        """
        population.pulse = self.check
        limit = self.elapsed + MEASURING * (self.budget or 0.0) if self.budget is not None else float("inf")

        size, length = 1, 1

        def seconds(splits: Sequence[str] = ()) -> float:
            begin = time.monotonic()
            population.train([configs[i % len(configs)] for i in range(size)], [0], length, splits=splits)
            return time.monotonic() - begin

        first = seconds()
        self.rate = 1 / first
        with self.until(limit), suppress(OutOfTime):
            last = seconds()
            self.setup, self.rate = max(0.0, first - last), 1 / last
            while (size, length) != (candidates, steps) and self.elapsed + 5 * last < limit:
                size, length = min(candidates, 4 * size), min(steps, length if size < candidates else 4 * length)
                last = seconds()
                self.rate = size * length / last
            self.scoring = max(0.0, seconds(["valid"]) - last) * self.rate / size

    def affords(self, work: int, plan: Plan) -> bool:
        """Whether there is time for this work and then a verdict on the fewest seeds, at the speed seen so far."""
        return self.budget is None or work + self._verdict(plan) <= self._left()

    def race_end(self, plan: Plan) -> float:
        """Seconds after which a race leaves too little time for a verdict on the fewest seeds; no limit: infinity."""
        if self.budget is None:
            return float("inf")
        return self.elapsed + (self._left() - self._verdict(plan)) / self._speed()

    def verdict_seeds(self, plan: Plan, candidates: int) -> int:
        """The plan's seeds of the verdict, halved until there is time for them."""
        seeds, each = plan.verdict_seeds, candidates * (plan.steps + 2 * self.scoring)
        while self.budget is not None and seeds > FEWEST_SEEDS and seeds * each > self._left():
            seeds //= 2
        return seeds

    def trained(self, rows: int, splits: int = 1) -> None:
        """So many trainings have been scored on so many parts of the data."""
        self.counted += rows * splits * self.scoring

    def _verdict(self, plan: Plan) -> float:
        """Candidate-steps of a verdict on the fewest seeds."""
        return (plan.rungs[-1].keep + PROTECTED) * FEWEST_SEEDS * (plan.steps + 2 * self.scoring)

    def _speed(self) -> float:
        """Candidate-steps per second, as measured or, once there is a race, as seen in it."""
        return self.counted / (time.monotonic() - self.started) if self.counted else self.rate

    def _left(self) -> float:
        """Candidate-steps in what is left of the budget."""
        return (RACE * (self.budget or 0.0) - self.elapsed) * self._speed()

    def round(self, number: int, of: int, *, candidates: int, rung: Rung, work: int) -> None:
        """See `Progress`."""
        if number == 1:
            self.started, self.counted = time.monotonic(), 0.0
        self.rounds.append({"candidates": candidates, "steps": rung.steps, "seeds": rung.seeds})
        self.listener.round(number, of, candidates=candidates, rung=rung, work=work)

    def left_out(self, rounds: int) -> None:
        """See `Progress`."""
        self.listener.left_out(rounds)

    def verdict(self, candidates: int, seeds: int) -> None:
        """See `Progress`."""
        self.listener.verdict(candidates, seeds)

    def training(self, work: int) -> None:
        """See `Progress`."""
        self.listener.training(work)

    def advance(self, work: int) -> None:
        """See `Progress`."""
        self.done += work
        self.counted += work
        self.listener.advance(work)

    def best(self, config: Config, value: float) -> None:
        """See `Progress`."""
        self.listener.best(config, value)

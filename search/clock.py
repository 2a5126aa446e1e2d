"""Measures the speed of training, and keeps a search within its time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from autoranger.components.core.config import Config
from autoranger.search.population import Population
from autoranger.search.progress import Progress
from autoranger.search.race.plan import Plan, Rung

SHARE = 0.7
"""Share of a budget that a plan may need by its estimate: extensions of the grid come on top."""

RACE = 0.9
"""Share of a budget after which only the verdict is trained."""

END = 0.95
"""Share of a budget after which nothing is trained: the rest is for writing the results."""

MEASURING = 0.1
"""Largest share of a budget in which the speed of training is measured, and as much again for scoring."""

FEWEST_SEEDS = 8
"""Fewest seeds of a verdict. With fewer it could hardly ever name a winner."""

MOST_SEEDS = 8
"""A verdict gets up to so many times the seeds of its plan if there is time for them."""

MEASURED, GPU_MEASURED, MEASURED_STEPS = 32, 256, 40
"""Most candidates and steps by which the speed is measured. A GPU takes hardly longer for many, as a search has."""

LOOKS, LOOKING = 10, 0.1
"""Most points of the finalists' learning curves, and the largest share of their time that these may take."""

CHUNKS = 16
"""Approximate number of chunks of a small search, each with its setup."""


class OutOfTime(BaseException):
    """The time for a training is over. Not an Exception, so that it is not taken for an error of the model."""


class Clock(Progress):
    """Counts work, in candidate-steps, against a time budget, and passes progress on to a listener.

    Args:
        budget: seconds, or None for no limit.
        listener: is told all that the clock is told.
        began: when the budget began, by `time.monotonic`; now by default.

    Attributes:
        rate: candidate-steps per second, as measured.
        scoring: steps of a training that take as long as scoring it once.
        setup: seconds before the first step of a chunk, without what happens only once.
        writing: seconds that have been spent on writing results. At the end, each trial is written once more.
    """

    def __init__(self, budget: float | None, listener: Progress, began: float | None = None) -> None:
        self.budget, self.listener = budget, listener
        self.began = time.monotonic() if began is None else began
        self.writing = 0.0
        if budget is not None:
            listener.limit(budget - self.elapsed)
        self.done, self.counted = 0, 0.0
        self.rounds: list[dict[str, int]] = []
        self.rate, self.scoring, self.setup = 0.0, 0.0, 0.0
        self.stages = list[tuple[float, float]]()
        self.deadline = float("inf")

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.began

    @property
    def affordable(self) -> float:
        """Candidate-steps that a plan may claim in the time that is left."""
        return (SHARE * (self.budget or 0.0) - self.elapsed - CHUNKS * self.setup) * self.rate

    @property
    def utmost(self) -> float:
        """Candidate-steps for which there is time, if nothing comes on top of them."""
        return (RACE * (self.budget or 0.0) - self.elapsed - CHUNKS * self.setup) * self.rate

    def needed(self, work: float) -> float:
        """The budget in which a plan of `work` candidate-steps from now on would fit."""
        return (self.elapsed + CHUNKS * self.setup + work / max(self.rate, 1e-9)) / RACE

    @property
    def end(self) -> float:
        """Seconds after which nothing is trained; infinity without a budget."""
        return float("inf") if self.budget is None else END * self.budget - self.writing

    @property
    def halfway(self) -> float:
        """Seconds after which half of the time that is left now is over."""
        return (self.elapsed + self.end) / 2

    def sweep_seeds(self, rates: int, steps: int) -> int:
        """The seeds of a sweep: two if they take less than a quarter of the time that is left, otherwise one."""
        work = rates * (steps + self.scoring)
        return 2 if 2 * work <= (self.end - self.elapsed) / 4 * self.rate else 1

    def needed_to_sweep(self, rates: int, steps: int) -> float:
        """The budget, in whole seconds and at least twice this one, in which a sweep would fit."""
        return max(2 * (self.budget or 0.0), math.ceil(2 * rates * (steps + self.scoring) / self.rate))

    @contextmanager
    def until(self, seconds: float) -> Iterator[None]:
        """Within it, `check` raises from this many seconds after the search began."""
        before, self.deadline = self.deadline, min(seconds, self.deadline)
        try:
            yield
        finally:
            self.deadline = before

    def check(self) -> None:
        """Called before every pass through a model. Raises OutOfTime when the time for the training is over."""
        if self.elapsed > self.deadline:
            raise OutOfTime

    def calibrate(self, population: Population, configs: Sequence[Config]) -> None:
        """Measures how fast a population trains and is scored, each within a tenth of the budget after a first step.

        It begins with few candidates and one step, and takes more as time allows: a step of some models takes a second.
        """
        gpu, passes = population.device.type == "cuda", list[float]()
        candidates, steps = min(population.rows, GPU_MEASURED) if gpu else MEASURED, MEASURED_STEPS

        def pulse() -> None:
            passes.append(time.monotonic())
            self.check()

        def seconds(size: int, length: int, splits: Sequence[str] = ()) -> float:
            """Seconds of a training from its first pass through the model on; the setup before is constant."""
            passes.clear()
            begin = time.monotonic()
            population.train([configs[i % len(configs)] for i in range(size)], [0], length, splits=splits)
            self.setup = max(self.setup, min(passes) - begin)
            return time.monotonic() - min(passes)

        population.pulse = pulse
        size, length = len(configs), 1
        last = seconds(size, length)
        self.rate, limit, self.setup = size / last, self.elapsed + MEASURING * self.end, 0.0
        with self.until(limit), suppress(OutOfTime):
            while (size, length) != (candidates, steps) and self.elapsed + 4 * last < limit:
                size, length = min(candidates, 4 * size), min(steps, length if size < candidates else 4 * length)
                last = seconds(size, length)
                self.rate = size * length / last
        with self.until(self.elapsed + MEASURING * self.end), suppress(OutOfTime):
            begin = time.monotonic()
            try:
                seconds(size, 1, ["valid"])
            finally:  # at least so long, where there was no time to score it all
                self.scoring = max(0.0, (time.monotonic() - begin - self.setup) / size * self.rate - 1)
        population.pulse = self.check

    def learn(self, work: float, seconds: float) -> None:
        """Raises the measured rate to that of a training that was faster."""
        self.rate = max(self.rate, work / seconds)

    def affords(self, work: int, plan: Plan) -> bool:
        """Whether there is time for this work and a verdict on the fewest seeds, at the speed seen so far."""
        return self.budget is None or work + self._verdict(plan) <= self._left()

    def refines(self, rounds: int, work: int, plan: Plan) -> bool:
        """Whether there is time for a refinement, after so many of them: for more than one only with a budget.

        The first one leaves time for a verdict on the fewest seeds, or the plan's if these are fewer; further ones for
        the plan's, and for the fewest at least: what they find must be told from luck.
        """
        if rounds == 0:
            return self.affords(work, plan)
        verdict = self._verdict(plan, max(FEWEST_SEEDS, plan.verdict_seeds))
        return self.budget is not None and work + verdict <= self._left()

    def race_end(self, plan: Plan) -> float:
        """Seconds after which too little time is left for a verdict on the fewest seeds; infinity without a budget."""
        if self.budget is None:
            return float("inf")
        return self.elapsed + (self._left() - self._verdict(plan)) / self._speed()

    def verdict_seeds(self, plan: Plan, candidates: int) -> int:
        """With how many seeds a verdict begins: the plan's, halved until they take a quarter of the time that is left.

        It goes on with more (`further_seeds`). A machine may get four times as slow, unless these are the fewest.
        """
        seeds, each = plan.verdict_seeds, candidates * self._training(plan)
        while self.budget is not None and seeds > FEWEST_SEEDS and 4 * seeds * each > self._left():
            seeds //= 2
        return seeds

    def further_seeds(self, plan: Plan, candidates: int, seeds: int) -> int:
        """With how many seeds a verdict goes on: as many again as it has had, or those for which there is time.

        None without a budget, if they are fewer than a quarter, or if it has had `MOST_SEEDS` times the plan's.
        """
        if self.budget is None:
            return 0
        each = candidates * (plan.steps + 2 * self.scoring)
        more = min(seeds, MOST_SEEDS * plan.verdict_seeds - seeds, int(self._left() / each))
        return more if 4 * more >= seeds else 0

    def looks(self, steps: int) -> int:
        """How often trainings of the verdict are scored on the way: in `LOOKING` of their time, if that is known."""
        most = min(LOOKS, steps)
        return most if self.scoring <= 0 else min(most, int(LOOKING * steps / self.scoring))

    @contextmanager
    def written(self) -> Iterator[None]:
        """Around the writing of results: counts its time."""
        began = time.monotonic()
        yield
        self.writing += time.monotonic() - began

    @contextmanager
    def proposing(self) -> Iterator[None]:
        """Around what a sampler thinks: no training is slower for it."""
        began = time.monotonic()
        yield
        self.stages = [(start + time.monotonic() - began, counted) for start, counted in self.stages]

    def trained(self, rows: int, splits: int = 1) -> None:
        """Counts the scoring of `rows` trainings on `splits` parts of the data."""
        self.counted += rows * splits * self.scoring

    def _training(self, plan: Plan) -> float:
        """Candidate-steps of one training of a verdict, with its looks and the scoring of two splits at its end."""
        return plan.steps + (2 + self.looks(plan.steps)) * self.scoring

    def _verdict(self, plan: Plan, seeds: int | None = None) -> float:
        """Candidate-steps of a verdict on so many seeds; by default the fewest, or the plan's if these are fewer."""
        return plan.finalists * (seeds or min(FEWEST_SEEDS, plan.verdict_seeds)) * self._training(plan)

    def _speed(self) -> float:
        """Candidate-steps per second: as measured, or as seen since the stage before this one began, in a race."""
        began, counted = next(iter(self.stages), (0.0, self.counted))
        return (self.counted - counted) / (time.monotonic() - began) if self.counted > counted else self.rate

    def _begin(self) -> None:
        """Begins a stage: a round, or the verdict. The machine may not be as busy as it was in earlier ones."""
        self.stages = [*self.stages[-1:], (time.monotonic(), self.counted)]

    def _left(self) -> float:
        """Candidate-steps for which there is time left."""
        return (RACE * (self.budget or 0.0) - self.writing - self.elapsed) * self._speed()

    def first(self) -> None:
        """See `Progress`."""
        self.listener.first()

    def sweep(self, rates: int, steps: int, seeds: int) -> None:
        """See `Progress`."""
        self.listener.sweep(rates, steps, seeds)

    def round(self, number: int, of: int, *, candidates: int, rung: Rung, work: int) -> None:
        """See `Progress`."""
        self._begin()
        self.rounds.append({"candidates": candidates, "steps": rung.steps, "seeds": rung.seeds})
        self.listener.round(number, of, candidates=candidates, rung=rung, work=work)

    def left_out(self, rounds: int) -> None:
        """See `Progress`."""
        self.listener.left_out(rounds)

    def refinement(self, variants: int, leaders: int, *, steps: int, seeds: int, work: int) -> None:
        """See `Progress`."""
        self.listener.refinement(variants, leaders, steps=steps, seeds=seeds, work=work)

    def unrefined(self) -> None:
        """See `Progress`."""
        self.listener.unrefined()

    def verdict(self, candidates: int, seeds: int, *, work: int) -> None:
        """See `Progress`."""
        self._begin()
        self.listener.verdict(candidates, seeds, work=work)

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

    def kept(self) -> None:
        """See `Progress`."""
        self.listener.kept()

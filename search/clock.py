"""Time and work: how fast a population trains here, and whether a budget allows what is planned."""

from __future__ import annotations

import time
from collections.abc import Sequence

from autoranger.components.config import Config
from autoranger.search.plan import Plan, Rung
from autoranger.search.population import Population
from autoranger.search.progress import Progress

SHARE = 0.7
"""The part of a budget that a plan may claim by its estimate: extensions of the grid and the test come on top."""

FEWEST_SEEDS = 8
"""A verdict on fewer seeds could hardly ever tell anything."""


class Clock(Progress):
    """Counts work, in candidate-steps, against a time budget, and passes all that it hears on.

    Args:
        budget: seconds, or None for no limit.
        listener: hears what the clock hears.
    """

    def __init__(self, budget: float | None, listener: Progress) -> None:
        self.budget, self.listener = budget, listener
        self.began = time.monotonic()
        self.done = 0
        self.rounds: list[dict[str, int]] = []
        self.rate = 0.0
        self.started = self.began

    @property
    def elapsed(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self.began

    @property
    def affordable(self) -> float:
        """Candidate-steps that a plan may claim in the time that is left."""
        return (SHARE * (self.budget or 0.0) - self.elapsed) * self.rate

    def calibrate(
        self, population: Population, configs: Sequence[Config], candidates: int = 32, steps: int = 40
    ) -> None:
        """Measures candidate-steps per second on a small population."""
        mixed = [configs[i % len(configs)] for i in range(candidates)]
        population.train(mixed, [0], 4, splits=())
        start = time.monotonic()
        population.train(mixed, [0], steps, splits=())
        self.rate = candidates * steps / (time.monotonic() - start)

    def affords(self, work: int, plan: Plan) -> bool:
        """Whether there is time for this work and then a verdict on the fewest seeds, at the speed seen so far."""
        verdict = (plan.rungs[-1].keep + 3) * FEWEST_SEEDS * plan.steps
        return self.budget is None or work + verdict <= self._left()

    def verdict_seeds(self, plan: Plan, candidates: int) -> int:
        """The plan's seeds of the verdict, halved until there is time for them."""
        seeds = plan.verdict_seeds
        while self.budget is not None and seeds > FEWEST_SEEDS and candidates * seeds * plan.steps > self._left():
            seeds //= 2
        return seeds

    def _left(self) -> float:
        """Candidate-steps in what is left of the budget."""
        seen = self.done / (time.monotonic() - self.started) if self.done else self.rate
        return (0.9 * (self.budget or 0.0) - self.elapsed) * seen

    def round(self, number: int, of: int, *, candidates: int, rung: Rung, work: int) -> None:
        """See `Progress`."""
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
        if not self.done:
            self.started = time.monotonic()
        self.listener.training(work)

    def advance(self, work: int) -> None:
        """See `Progress`."""
        self.done += work
        self.listener.advance(work)

    def best(self, config: Config, value: float) -> None:
        """See `Progress`."""
        self.listener.best(config, value)

    def kept(self) -> None:
        """See `Progress`."""
        self.listener.kept()

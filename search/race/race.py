"""The race: rounds of growing length and seeds, in which arms drop out until the finalists are left.

Every round trains from scratch on new seeds, with schedules scaled to its own length (a truncated schedule is another
optimizer). An arm is judged at its best learning rate, which must not lie on the edge of the grid: for every arm that
would go on, the grid is extended until both neighbours of its best rate have been tried in the same round. The first
round is an *opening*: it trains every arm of a list (`Grid`), or what a sampler chooses (`Exploration`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np

from autoranger.components.core.config import Config
from autoranger.components.core.errors import SearchError
from autoranger.search.arrays import Values
from autoranger.search.clock import Clock, OutOfTime
from autoranger.search.race.baselines import RANDOM
from autoranger.search.race.plan import ENTRANTS, Plan, Refinement, Rung
from autoranger.search.race.trainer import Trainer
from autoranger.search.space import neighbours
from autoranger.search.storage.record import Record

T = TypeVar("T")

Standings = dict[Config, dict[float, Values]]
"""Metric of every seed, by arm and learning rate."""


class Opening(Protocol):
    """A first round."""

    @property
    def name(self) -> str:
        """The name of what chooses the candidates."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Numbers of arms and of learning rates; their product is the number of trainings per seed."""
        ...

    def __call__(self, race: Race, plan: Plan, seeds: Sequence[int]) -> Standings:
        """Trains the round. Returns the arms that may go on, and protects the best arm of random candidates."""
        ...


@dataclass(frozen=True)
class Grid:
    """The opening that trains every arm with every learning rate.

    Args:
        arms: the entrants.
        lrs: the grid.
    """

    arms: Sequence[Config]
    lrs: Sequence[float]
    name: str = "grid"

    @property
    def size(self) -> tuple[int, int]:
        """See `Opening`."""
        return len(self.arms), len(self.lrs)

    def __call__(self, race: Race, plan: Plan, seeds: Sequence[int]) -> Standings:
        """See `Opening`. A random search would have trained the same candidates, so that its best arm is the grid's."""
        scores = Standings()
        race.train(
            [(arm, lr) for arm in (*self.arms, *race.baselines) for lr in self.lrs], plan.rungs[0].steps, seeds, scores
        )
        race.protect(scores)
        entered = {arm: scores[arm] for arm in (*self.arms, *race.protected.values())}
        race.extend(entered, plan.rungs[0], seeds)
        race.protected[RANDOM] = max(self.arms, key=lambda arm: best_value(scores[arm]))
        return entered


class Race:
    """Runs rounds over arms.

    Args:
        population: trains the candidates.
        record: where trials go.
        families: the arms of the baselines, by their roles.
        clock: is told what happens, and asked whether there is time.
        cost: of an arm; None if it does not matter. Arms on the Pareto front of metric and cost stay in the race.

    Attributes:
        rungs: the rounds as they were, of which a budget may have left some out, or made them smaller.
        refinement: the first refinement of the leaders' numbers, likewise; None if there was none.
        protected: arms that stay in every round and are finalists whatever their rank: the best of each family after
            the first round, by role.
    """

    def __init__(
        self,
        population: Trainer,
        record: Record,
        families: Mapping[str, Sequence[Config]],
        clock: Clock,
        cost: Callable[[Config], float] | None = None,
    ) -> None:
        self.population, self.record, self.clock, self.cost = population, record, clock, cost
        self.families, self.protected = families, dict[str, Config]()
        self.rungs = list[Rung]()
        self.refinement: Refinement | None = None

    @property
    def failures(self) -> Mapping[Config, str]:
        """Why candidates have failed, where that is known."""
        return getattr(self.population, "failures", {})  # a table of results has none

    @property
    def baselines(self) -> list[Config]:
        """The arms of all families."""
        return [arm for family in self.families.values() for arm in family]

    def protect(self, scores: Standings) -> None:
        """Protects the best arm of each family."""
        for role, family in self.families.items():
            self.protected[role] = max(family, key=lambda arm: best_value(scores[arm]))

    def round(self, arms: dict[Config, list[float]], rung: Rung, seeds: Sequence[int]) -> Standings:
        """Trains every arm with its learning rates, and those that would go on with further ones (see `extend`).

        Args:
            arms: learning rates to try, by arm.
            rung: length of the trainings, and how many arms will be kept.
            seeds: of the trainings.

        Returns:
            the scores of all arms.
        """
        scores: Standings = {}
        self.train([(arm, lr) for arm, lrs in arms.items() for lr in lrs], rung.steps, seeds, scores)
        self.extend(scores, rung, seeds)
        return scores

    def extend(self, scores: Standings, rung: Rung, seeds: Sequence[int]) -> None:
        """Trains a round's leaders with further rates, until both neighbours of each one's best have been tried.

        Without time for that, the rates of the grid have to do.
        """
        while True:
            leaders = self.survivors(scores, rung.keep)
            edges = {arm: [lr for lr in neighbours(best_lr(scores[arm])) if lr not in scores[arm]] for arm in leaders}
            wanted = [(arm, lr) for arm, lrs in edges.items() for lr in lrs]
            if not wanted:
                return
            try:
                self.train(wanted, rung.steps, seeds, scores)
            except OutOfTime:
                return

    def survivors(self, scores: Standings, keep: int) -> list[Config]:
        """The arms that go on: the best `keep`, best first, those on the Pareto front, and the protected ones."""
        ranked = sorted(scores, key=lambda arm: -best_value(scores[arm]))
        front = pareto({arm: best_value(scores[arm]) for arm in ranked}, self.cost) if self.cost else ()
        return list(dict.fromkeys([*ranked[:keep], *front, *self.protected.values()]))

    def run(self, opening: Opening, plan: Plan, seeds: Callable[[int], list[int]]) -> Standings:
        """Runs the rounds of a plan, without those that a time budget does not allow before the verdict.

        Args:
            opening: the first round; the best arm of a random search in it becomes a protected one.
            plan: the rounds.
            seeds: gives that many seeds that have not been used before.

        Returns:
            the scores of the finalists and the protected arms in the last round, best first.

        Raises:
            SearchError: if every training of the first round diverged.
            OutOfTime: if there is no time for the first round.
        """
        (arms, rates), first, rounds = opening.size, plan.rungs[0], len(plan.rungs)
        self.clock.round(1, rounds, candidates=(arms + ENTRANTS) * rates, rung=first, work=plan.cost(arms, rates))
        with self.clock.until(self.clock.race_end(plan)):
            scores = opening(self, plan, seeds(first.seeds))
        require_finite(scores, first.steps, self.failures)
        self.rungs = [first]
        for number, (before, rung) in enumerate(pairwise(plan.rungs), start=2):
            entrants, kept = self.entrants(scores, before.keep, rung, plan)
            if not entrants:
                self.clock.left_out(rounds - number + 1)
                break
            candidates = sum(map(len, entrants.values()))
            work = plan.cost(len(entrants), rates, first=number - 1)
            self.clock.round(number, rounds, candidates=candidates, rung=rung, work=work)
            self.rungs = [*self.rungs[:-1], replace(before, keep=kept), rung]
            try:
                with self.clock.until(self.clock.race_end(plan)):  # at the speed seen by now
                    scores = self.round(entrants, rung, seeds(rung.seeds))
            except OutOfTime:  # what the rounds before have found stands
                self.clock.rounds.pop()
                self.rungs.pop()
                self.clock.left_out(rounds - number + 1)
                break
        return {arm: scores[arm] for arm in self.survivors(scores, plan.rungs[-1].keep)}

    def entrants(self, scores: Standings, most: int, rung: Rung, plan: Plan) -> tuple[dict[Config, list[float]], int]:
        """The arms of a round with their rates: `most`, or half as many, and so on, until there is time; else none.

        Also how many they are, besides those that stay whatever their rank.
        """
        while True:
            arms = {arm: nearest(scores[arm], rung.lrs) for arm in self.survivors(scores, most)}
            if self.clock.affords(sum(map(len, arms.values())) * rung.seeds * rung.steps, plan):
                return arms, most
            if most <= rung.keep:
                return {}, 0
            most = max(rung.keep, most // 2)

    def train(
        self, wanted: Sequence[tuple[Config, float]], steps: int, seeds: Sequence[int], scores: Standings
    ) -> None:
        """Trains candidates, or recalls their results; adds these to `scores`, the record and the progress."""

        def note(configs: Sequence[Config], values: Values) -> None:
            self.record.reasons |= {config: self.failures[config] for config in configs if config in self.failures}
            with self.clock.written():
                for config, row in zip(configs, values, strict=True):
                    self.record.report(config, steps, seeds, row)
                    scores[origin[config]][config.lr] = row
            arm = max(scores, key=lambda arm: best_value(scores[arm]))
            if np.isfinite(best_value(scores[arm])):
                self.clock.best(replace(arm, lr=best_lr(scores[arm])), best_value(scores[arm]))
            self.clock.kept()

        for arm, _ in wanted:  # in this order, whatever is done first: of equally good arms the first one leads
            scores.setdefault(arm, {})
        origin = {replace(arm, lr=lr): arm for arm, lr in wanted}
        recalled = {config: self.record.recall(config, steps, seeds) for config in origin}
        for config, values in recalled.items():
            if values is not None:
                note([config], values[None])
        fresh = [config for config, values in recalled.items() if values is None]
        self.clock.training(len(fresh) * len(seeds) * steps)
        self.record.begin()
        rest: dict[str, Any] = {"among": list(origin)} if 0 < len(fresh) < len(origin) else {}
        self.population.train(
            fresh, seeds, steps, progress=self.clock.advance, report=lambda part, s: note(part, s["valid"]), **rest
        )
        self.clock.trained(len(fresh) * len(seeds))


def require_finite(scores: Standings, steps: int, failures: Mapping[Config, str]) -> None:
    """Raises SearchError if every candidate failed on some seed, with a reason if one is known."""
    if not any(np.isfinite(best_value(by_lr)) for by_lr in scores.values()):
        rates = sorted({lr for by_lr in scores.values() for lr in by_lr})
        why = next(iter(failures.values()), "diverged")
        raise SearchError(
            f"every training of {steps} steps failed, with learning rates from {rates[0]:g} to {rates[-1]:g} (one of "
            f"them: {why}); see whether loss, metric and data are finite for an untrained model, and begin with lower "
            "rates (lr_range)."
        )


def pareto(merits: Mapping[T, float], cost: Callable[[T], float]) -> list[T]:
    """The Pareto front, best first: what has a finite merit and costs less than everything as good or better."""
    front, lowest = [], np.inf
    for thing in sorted(merits, key=lambda thing: (-merits[thing], cost(thing))):
        if np.isfinite(merits[thing]) and cost(thing) < lowest:
            lowest = cost(thing)
            front.append(thing)
    return front


def value(scores: Values) -> float:
    """What a candidate is ranked by: its mean over seeds, or minus infinity if any of them diverged."""
    return float(scores.mean()) if np.isfinite(scores).all() else -np.inf


def mean(scores: Values) -> float:
    """Mean of the runs that did not diverge, NaN if none is left."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def best_lr(by_lr: dict[float, Values]) -> float:
    """The learning rate with the best value; of equals the smaller one."""
    return max(sorted(by_lr), key=lambda lr: value(by_lr[lr]))


def best_value(by_lr: dict[float, Values]) -> float:
    """The value at the best learning rate; minus infinity if there is none yet."""
    return max(map(value, by_lr.values()), default=-np.inf)


def nearest(by_lr: dict[float, Values], count: int) -> list[float]:
    """The best learning rate and its neighbours, `count` in all, the better side first."""
    best = best_lr(by_lr)
    ranked = sorted(by_lr, key=lambda lr: (abs(round(2 * np.log10(lr / best))), -value(by_lr[lr]), lr))
    return sorted(ranked[:count])

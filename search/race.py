"""The race: rounds of growing length and seeds, in which arms drop out until the finalists are left.

Every round trains from scratch on new seeds, with schedules scaled to its own length (a truncated schedule is another
optimizer). An arm is judged at its best learning rate, and that best may not lie on an edge: for every arm that would
go on, the grid is extended until both neighbours of its best rate have been tried in the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from optuna.trial import TrialState

from autoranger.components.config import Config
from autoranger.search.clock import Clock
from autoranger.search.plan import Plan, Rung
from autoranger.search.population import Population
from autoranger.search.record import Record
from autoranger.search.space import neighbours
from autoranger.search.verdict import Values

Scores = dict[Config, dict[float, Values]]
"""Metric of every seed, by arm and learning rate."""


class Race:
    """Runs rounds over arms.

    Args:
        population: trains the candidates.
        record: where trials go.
        protected: arms that stay in every round and are finalists whatever their rank: the baselines.
        clock: told what happens, and asked whether there is time.
    """

    def __init__(self, population: Population, record: Record, protected: Sequence[Config], clock: Clock) -> None:
        self.population, self.record, self.clock = population, record, clock
        self.protected = list(protected)

    def round(self, arms: dict[Config, list[float]], rung: Rung, seeds: Sequence[int]) -> Scores:
        """Trains every arm with its learning rates, and with more for those that would be kept.

        Args:
            arms: learning rates to try, by arm.
            rung: length of the trainings, and how many arms will be kept.
            seeds: of the trainings.

        Returns:
            the scores of all arms.
        """
        scores: Scores = {arm: {} for arm in arms}
        wanted = [(arm, lr) for arm, lrs in arms.items() for lr in lrs]
        while wanted:
            self._train(wanted, rung.steps, seeds, scores)
            leaders = self.kept(scores, rung.keep)
            edges = {arm: [lr for lr in neighbours(best_lr(scores[arm])) if lr not in scores[arm]] for arm in leaders}
            wanted = [(arm, lr) for arm, lrs in edges.items() for lr in lrs]
        return scores

    def kept(self, scores: Scores, keep: int) -> list[Config]:
        """The best `keep` arms, best first, and the protected ones."""
        ranked = sorted(scores, key=lambda arm: -best_value(scores[arm]))
        return ranked[:keep] + [arm for arm in self.protected if arm not in ranked[:keep]]

    def run(
        self, arms: Sequence[Config], lrs: Sequence[float], plan: Plan, seeds: Callable[[int], list[int]]
    ) -> Scores:
        """All rounds of a plan; with a time budget, rounds that would leave no time for the verdict are left out.

        Args:
            arms: the entrants; the protected ones enter anyway.
            lrs: the grid of the first round.
            plan: its rounds.
            seeds: gives that many seeds that have not been used before.

        Returns:
            the scores of the finalists and the protected arms in the last round, best first.
        """
        entrants = {arm: list(lrs) for arm in [*arms, *(arm for arm in self.protected if arm not in arms)]}
        scores: Scores = {}
        finals = plan.rungs[-1].keep
        for number, rung in enumerate(plan.rungs):
            candidates = sum(map(len, entrants.values()))
            if number > 0 and not self.clock.affords(candidates * rung.seeds * rung.steps, plan):
                break
            work = plan.cost(len(entrants), len(lrs), first=number)
            self.clock.round(number + 1, len(plan.rungs), candidates=candidates, arms=len(entrants), work=work)
            scores = self.round(entrants, rung, seeds(rung.seeds))
            following = plan.rungs[number + 1 :][:1]
            entrants = {arm: nearest(scores[arm], r.lrs) for r in following for arm in self.kept(scores, rung.keep)}
            for arm, by_lr in scores.items():
                for lr in by_lr:
                    if lr not in entrants.get(arm, []) and following:
                        self.record.finish(replace(arm, lr=lr), TrialState.PRUNED)
        leaders = self.kept(scores, finals)
        for arm in leaders:
            self.record.finish(replace(arm, lr=best_lr(scores[arm])), TrialState.COMPLETE)
        return {arm: scores[arm] for arm in leaders}

    def _train(self, wanted: Sequence[tuple[Config, float]], steps: int, seeds: Sequence[int], scores: Scores) -> None:
        """Trains candidates, or recalls them, into `scores`, the record and the progress."""

        def note(configs: Sequence[Config], values: Values) -> None:
            for config, row in zip(configs, values, strict=True):
                self.record.report(config, steps, seeds, row)
                scores[origin[config]][config.lr] = row
            best = max((best_value(by_lr), i) for i, by_lr in enumerate(scores.values()))
            arm = list(scores)[best[1]]
            self.clock.best(replace(arm, lr=best_lr(scores[arm])), best[0])

        origin = {replace(arm, lr=lr): arm for arm, lr in wanted}
        recalled = {config: self.record.recall(config, steps, seeds) for config in origin}
        for config, values in recalled.items():
            if values is not None:
                note([config], values[None])
        fresh = [config for config, values in recalled.items() if values is None]
        self.clock.training(len(fresh) * len(seeds) * steps)
        self.population.train(
            fresh, seeds, steps, progress=self.clock.advance, report=lambda part, s: note(part, s["valid"])
        )


def value(scores: Values) -> float:
    """What a candidate is ranked by: its mean over seeds, or minus infinity where any of them diverged."""
    return float(scores.mean()) if np.isfinite(scores).all() else -np.inf


def mean(scores: Values) -> float:
    """Mean of the runs that did not diverge, NaN where none is left."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def best_lr(by_lr: dict[float, Values]) -> float:
    """The learning rate with the best value; the smaller one of equals."""
    return max(sorted(by_lr), key=lambda lr: value(by_lr[lr]))


def best_value(by_lr: dict[float, Values]) -> float:
    """The value at the best learning rate; minus infinity where there is none yet."""
    return max(map(value, by_lr.values()), default=-np.inf)


def nearest(by_lr: dict[float, Values], count: int) -> list[float]:
    """The best learning rate and those around it, `count` in all, the better side first."""
    best = best_lr(by_lr)
    ranked = sorted(by_lr, key=lambda lr: (abs(round(2 * np.log10(lr / best))), -value(by_lr[lr]), lr))
    return sorted(ranked[:count])

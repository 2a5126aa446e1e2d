"""What a search trains: a sweep of the default's rate, a race, a refinement, and the finalists on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoranger.components.core.config import Config
from autoranger.components.core.errors import SearchError
from autoranger.search.clock import OutOfTime
from autoranger.search.population.population import Scores
from autoranger.search.race.objectives import Reaching
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.race.race import Opening, Race, Standings, best_lr
from autoranger.search.race.refine import refine
from autoranger.search.race.trainer import Trainer
from autoranger.search.storage.curves import Curve, as_facts, known_curves

SPLITS = ("valid", "test")
"""The parts of the data on which finalists are scored."""


@dataclass(frozen=True)
class Finals:
    """The finalists of a race, trained on fresh seeds.

    Args:
        configs: the finalists, each with its best learning rate of the race.
        roles: indices of the baselines among them, by role.
        seeds: the fresh seeds.
        scores: metric `[F, S]` of the splits valid and test.
    """

    configs: list[Config]
    roles: dict[str, int]
    seeds: list[int]
    scores: Scores


def compete(race: Race, opening: Opening, plan: Plan, fresh: Callable[[int], list[int]]) -> Finals:
    """Runs a race, and trains its finalists on fresh seeds.

    Raises:
        SearchError: if every training diverged.
        OutOfTime: if there is no time for the first round or the last trainings.
    """
    clock = race.clock
    finalists = race.run(opening, plan, fresh)
    if plan.refine is not None and len(clock.rounds) == len(plan.rungs):
        with clock.until(clock.race_end(plan)):
            finalists = refine(race, finalists, plan, fresh)
    require_reached(race.population)
    configs = [replace(arm, lr=best_lr(by_lr)) for arm, by_lr in finalists.items()]
    roles = {role: list(finalists).index(arm) for role, arm in race.protected.items()}
    noted = race.record.verdict_seeds
    seeds = fresh(noted or clock.verdict_seeds(plan, len(configs)))
    clock.verdict(len(configs), len(seeds), work=len(configs) * len(seeds) * plan.steps)
    with clock.until(clock.end):
        scores = final(race, configs, seeds, plan.steps)
    while noted is None and (extra := clock.further_seeds(plan, len(configs), len(seeds))):
        more = fresh(extra)
        clock.verdict(len(configs), len(seeds) + extra, work=len(configs) * extra * plan.steps)
        try:
            with clock.until(clock.end):
                further = race.population.train(configs, more, plan.steps, splits=SPLITS, progress=clock.advance)
        except OutOfTime:
            break
        seeds += more
        scores = {split: np.concatenate([scores[split], further[split]], axis=1) for split in SPLITS}
        race.record.report_verdict(
            plan.steps, seeds, {config: {s: scores[s][k] for s in SPLITS} for k, config in enumerate(configs)}
        )
        clock.kept()
    return Finals(configs, roles, seeds, scores)


def final(race: Race, configs: Sequence[Config], seeds: Sequence[int], steps: int) -> Scores:
    """The metric `[F, S]` of the finalists on the splits valid and test. Results of an earlier session are reused."""
    record, clock = race.record, race.clock
    done = record.recall_verdict(steps, seeds)
    fresh = [config for config in configs if config not in done]

    def note(part: Sequence[Config], scores: Scores) -> None:
        done.update({config: {split: scores[split][i] for split in SPLITS} for i, config in enumerate(part)})
        record.report_verdict(steps, seeds, done)
        if "curve" in scores:
            curves.extend(Curve.of(config, steps, scores["curve"][i]) for i, config in enumerate(part))
            record.note(**as_facts(curves))
        clock.kept()

    curves = known_curves(record.study) if done else []
    record.report_verdict(steps, seeds, done)
    clock.training(len(fresh) * len(seeds) * steps)
    among = configs if len(fresh) < len(configs) else ()
    race.population.train(
        fresh,
        seeds,
        steps,
        splits=SPLITS,
        curve=clock.looks(steps),
        progress=clock.advance,
        report=note,
        among=among,
    )
    return {split: np.stack([done[config][split] for config in configs]) for split in SPLITS}


def sweep(race: Race, default: Config, lrs: Sequence[float], steps: int, seeds: Sequence[int]) -> Standings:
    """Trains the default with every learning rate, and with more if its best lies on the edge of the grid.

    Raises:
        SearchError: if the budget is too short for it.
    """
    clock = race.clock
    rung = Rung(steps=steps, seeds=len(seeds), keep=1, lrs=len(lrs))
    began, done = clock.elapsed, clock.done
    clock.sweep(len(lrs), steps, len(seeds))
    try:
        with clock.until(clock.end):
            scores = race.round({default: list(lrs)}, rung, seeds)
    except OutOfTime:
        raise SearchError(
            f"in {clock.budget:g} s there is no time for the {len(lrs)} trainings of {steps} steps that find the best "
            f"learning rate of full Ranger21; give it a --budget of {clock.needed_to_sweep(len(lrs), steps):.0f}s "
            "or more, or make the task's steps fewer or its model smaller."
        ) from None
    clock.learn(clock.done - done, clock.elapsed - began)
    return scores


def require_reached(population: Trainer) -> None:
    """Raises ConfigError if the objective is a target that no training has reached."""
    if isinstance(population, Reaching):
        population.check()

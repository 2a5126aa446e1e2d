"""What a search trains: the default with every rate, a race of candidates, and its finalists on fresh seeds."""

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
from autoranger.search.race.trainer import Trainer


@dataclass(frozen=True)
class Found:
    """What a race led to, on fresh seeds.

    Args:
        configs: the finalists, each with its best learning rate of the race.
        roles: which of them are the baselines.
        seeds: fresh ones.
        scores: metric `[F, S]` of the splits valid and test.
    """

    configs: list[Config]
    roles: dict[str, int]
    seeds: list[int]
    scores: Scores


def compete(race: Race, opening: Opening, plan: Plan, fresh: Callable[[int], list[int]]) -> Found:
    """Runs a race, and trains its finalists on fresh seeds.

    Raises:
        SearchError: where everything diverged.
        OutOfTime: where there is no time for the first round or the last trainings.
    """
    clock = race.clock
    with clock.until(clock.race_end(plan)):
        finalists = race.run(opening, plan, fresh)
    require_reached(race.population)
    configs = [replace(arm, lr=best_lr(by_lr)) for arm, by_lr in finalists.items()]
    roles = {role: list(finalists).index(arm) for role, arm in race.protected.items()}
    seeds = fresh(race.record.verdict_seeds or clock.verdict_seeds(plan, len(configs)))
    clock.verdict(len(configs), len(seeds))
    with clock.until(clock.end):
        scores = final(race, configs, seeds, plan.steps)
    return Found(configs, roles, seeds, scores)


def final(race: Race, configs: Sequence[Config], seeds: Sequence[int], steps: int) -> Scores:
    """The metric `[F, S]` of the finalists on the valid and the test split: trained, or recalled, and recorded."""
    record, clock = race.record, race.clock
    done = record.recall_verdict(steps, seeds)
    fresh = [config for config in configs if config not in done]

    def note(part: Sequence[Config], scores: Scores) -> None:
        done.update({config: {split: v[i] for split, v in scores.items()} for i, config in enumerate(part)})
        record.report_verdict(steps, seeds, done)
        clock.kept()

    record.report_verdict(steps, seeds, done)
    clock.training(len(fresh) * len(seeds) * steps)
    among = configs if len(fresh) < len(configs) else ()
    race.population.train(
        fresh, seeds, steps, splits=("valid", "test"), progress=clock.advance, report=note, among=among
    )
    return {split: np.stack([done[config][split] for config in configs]) for split in ("valid", "test")}


def sweep(race: Race, default: Config, lrs: Sequence[float], steps: int, seeds: Sequence[int]) -> Standings:
    """Trains the default with every learning rate, and more where its best lies on an edge: what is always known.

    Raises:
        SearchError: where there is no time for it.
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
            f"in {clock.budget:g} s there is no time for {len(lrs)} trainings of {steps} steps, which would tell the "
            f"best learning rate of full Ranger21; give it a --budget of {clock.needed_to_sweep(len(lrs), steps):.0f}s "
            "or more, or make the task's steps fewer or its model smaller."
        ) from None
    clock.learn(clock.done - done, clock.elapsed - began)
    return scores


def require_reached(population: Trainer) -> None:
    """ConfigError where the objective is a target that no training has reached."""
    if isinstance(population, Reaching):
        population.check()

"""The search: plan, race, verdict on fresh seeds, and the evidence that goes with the exported config."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from typing import Any

from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from autoranger.components.config import EVIDENCE, Config
from autoranger.search import samplers
from autoranger.search.clock import Clock
from autoranger.search.evidence import DEFAULT, PLAIN, Finalist, describe, judge
from autoranger.search.explore import Exploration
from autoranger.search.plan import LISTED, Plan, make_plan, plan_for
from autoranger.search.population import Population
from autoranger.search.progress import Progress
from autoranger.search.race import Grid, Race, best_lr
from autoranger.search.record import Record
from autoranger.search.space import Space, lr_grid
from autoranger.search.tasks.task import Task

AUTO, GRID = "auto", "grid"
"""Ways to open a race besides the samplers: a grid where the plan has room for every subset; a grid in any case."""

EXPLORED = 64
"""Subsets for whose learning rates a sampler has time in the standard plan."""


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Args:
        config: to be exported: the winner, or the default where nothing beats it significantly.
        default_kept: whether it is the default.
        finalists: all candidates of the verdict, best validation metric first. The baselines are among them: the
            default (full Ranger21), AdamW, both with the same sweep of learning rates as the others had, and the best
            of random candidates, as many as the first round trained.
        evidence: what the exported file says about the config.
        seconds: how long it took.
        work: candidate-steps trained.
    """

    config: Config
    default_kept: bool
    finalists: list[Finalist]
    evidence: dict[str, Any]
    seconds: float
    work: int


def search(
    task: Task,
    storage: BaseStorage,
    study: str,
    *,
    space: Space | None = None,
    seed: int = 0,
    budget: float | None = None,
    plan: Plan | None = None,
    sampler: str | BaseSampler = AUTO,
    resume: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Finds the best subset of components for a task, with its learning rate.

    Args:
        task: what to train.
        storage: Optuna storage of the trials.
        study: name of the study in it.
        space: what to choose from; the subsets of Ranger21 by default.
        seed: of everything; the same seed and plan give the same result on the same machine.
        budget: seconds that the search should take at most; no limit where None.
        plan: what to do; where None the task's standard plan, or what fits the budget.
        sampler: chooses what the first round trains: a name in `samplers.SAMPLERS` or a sampler of Optuna; "grid"
            for every subset with a grid of learning rates; by default the grid where the plan has room for all subsets,
            and otherwise `samplers.DEFAULT`.
        resume: whether to continue the study of that name.
        progress: listens.

    Raises:
        ConfigError: where the study exists and is not resumed, or the other way round, where the task's model fails,
            or for a sampler that there is not.
        DataError: where the task's data are missing.
    """
    space, lrs, clock = space or Space(), lr_grid(*task.lr_range), Clock(budget, progress or Progress())
    chooser = sampler
    if isinstance(chooser, str):
        chooser = samplers.named(samplers.DEFAULT if chooser in (AUTO, GRID) else chooser, seed)
    settings = {
        "task": task.name,
        "steps": task.steps,
        "batch_size": task.batch_size,
        "seed": seed,
        "budget": budget,
        "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__,
        "components": list(space.components),
    }
    population = Population(task)
    record = Record(storage, study, space, settings, resume=resume)
    try:
        if plan is None and budget is not None:
            clock.calibrate(population, [replace(arm, lr=lrs[0]) for arm in (space.default, space.plain)])
            plan = plan_for(task.steps, space.size, len(lrs), clock.affordable)
        if plan is None:
            every = sampler == GRID or (sampler == AUTO and space.size <= LISTED)
            plan = make_plan(task.steps, arms=LISTED if every else EXPLORED)
        race = Race(population, record, {DEFAULT: space.default, PLAIN: space.plain}, clock)
        whole = sampler == GRID or (sampler == AUTO and plan.arms >= space.size)
        opening = Grid(space.arms(plan.arms, seed), lrs) if whole else Exploration(space, lrs, chooser, plan.arms, seed)
        numbers = count(seed * 1_000_000)

        def fresh_seeds(size: int) -> list[int]:
            return list(islice(numbers, size))

        finalists = race.run(opening, plan, fresh_seeds)
        chosen = [replace(arm, lr=best_lr(by_lr)) for arm, by_lr in finalists.items()]
        seeds = fresh_seeds(clock.verdict_seeds(plan, len(chosen)))
        clock.verdict(len(chosen), len(seeds))
        clock.training(len(chosen) * len(seeds) * plan.steps)
        scores = population.train(chosen, seeds, plan.steps, splits=("valid", "test"), progress=clock.advance)
    finally:
        record.close()
    ranked, best = judge(chosen, scores, {role: list(finalists).index(arm) for role, arm in race.protected.items()})
    evidence = describe(task, plan, settings, seeds, ranked, best)
    outcome = Outcome(best.config, DEFAULT in best.roles, ranked, evidence, clock.elapsed, clock.done)
    record.conclude(
        outcome=best.config.to_dict() | {EVIDENCE: evidence},
        finalists=[asdict(finalist) | {"config": finalist.config.to_dict()} for finalist in ranked],
        spent={"seconds": clock.elapsed, "work": clock.done, "rounds": clock.rounds},
    )
    return outcome

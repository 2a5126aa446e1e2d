"""The search: plan, race, verdict on fresh seeds, and the evidence that goes with the exported config."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from autoranger.components.config import EVIDENCE, Config
from autoranger.components.errors import ConfigError, unknown
from autoranger.search import samplers
from autoranger.search.clock import Clock
from autoranger.search.cost import Cost
from autoranger.search.evidence import DEFAULT, PLAIN, Finalist, describe, judge
from autoranger.search.explore import Exploration
from autoranger.search.fingerprint import fingerprint
from autoranger.search.objectives import METRIC, Reaching, prepared
from autoranger.search.plan import LISTED, Plan, make_plan, plan_for
from autoranger.search.population import Population, Scores
from autoranger.search.progress import Progress
from autoranger.search.race import Grid, Opening, Race, best_lr
from autoranger.search.record import FINGERPRINT, Record
from autoranger.search.space import HIGHEST_LR, LOWEST_LR, Space, lr_grid
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
            of random candidates: all of the first round's, or half of them where a sampler chose the others.
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
    objective: str = METRIC,
    cost: Cost | None = None,
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
        objective: what is better: a higher `metric` of the task at the end (by default), a lower `loss`, or
            fewer steps to a value of the metric, as in `steps:0.95`.
        cost: of a config's optimizer, such as `cost.memory()`. Subsets that none beats in both stay in the race, and
            the finalists become a second study of two objectives, whose `best_trials` are their Pareto front. The
            verdict does not look at it.
        resume: whether to continue the study of that name.
        progress: listens.

    Raises:
        ConfigError: where the study exists and is not resumed, or the other way round, where the task's model fails,
            or for a sampler or an objective that there is not, or one that no training reaches.
        DataError: where the task's data are missing.
    """
    space, lrs, clock = space or Space(), lr_grid(*task.lr_range), Clock(budget, progress or Progress())
    chooser = chosen_sampler(sampler, seed)
    task, trained_for = prepared(task, objective)
    if not lrs or lrs[0] < LOWEST_LR or lrs[-1] > HIGHEST_LR:
        raise ConfigError(
            f"task '{task.name}': no rate of the grid 1e-6, 3e-6, 1e-5, … 1e2 lies in its lr_range "
            f"{task.lr_range}; widen it."
        )
    settings: dict[str, Any] = {
        "task": task.name,
        "metric": task.metric_name,
        "steps": task.steps,
        "batch_size": task.batch_size,
        "lr_range": list(task.lr_range),
        "device": task.device.type,
        "seed": seed,
        "budget": budget,
        "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__,
        "objective": objective,
        "cost": cost and cost.name,
        "components": list(space.components),
    }
    bare = Population(task)
    population, priced = trained_for(bare), None if cost is None else cost.of
    settings[FINGERPRINT] = fingerprint(bare, replace(space.default, lr=lrs[0]))
    record = Record(storage, study, space, settings, resume=resume)
    front = None if cost is None else record.front()
    try:
        if budget is not None:
            clock.calibrate(bare, [replace(arm, lr=lrs[0]) for arm in (space.default, space.plain)])
        plan = plan or record.plan or planned(task, space, clock, sampler)
        race = Race(population, record, {DEFAULT: space.default, PLAIN: space.plain}, clock, priced)
        called = samplers.DEFAULT if sampler == AUTO else settings["sampler"]
        opening: Opening = Exploration(space, lrs, chooser, plan.arms, seed, called)
        if lists(sampler, space, plan.arms):
            opening = Grid(space.arms(plan.arms, seed), lrs)
        record.note(plan=plan.to_dict(), opening=opening.name)
        numbers = count(seed * 1_000_000)

        def fresh_seeds(size: int) -> list[int]:
            return list(islice(numbers, size))

        finalists = race.run(opening, plan, fresh_seeds)
        if isinstance(population, Reaching):
            population.check()
        chosen = [replace(arm, lr=best_lr(by_lr)) for arm, by_lr in finalists.items()]
        seeds = fresh_seeds(record.verdict_seeds or clock.verdict_seeds(plan, len(chosen)))
        clock.verdict(len(chosen), len(seeds))
        scores = final(population, record, chosen, seeds, plan.steps, clock)
    finally:
        record.close()
    places = {role: list(finalists).index(arm) for role, arm in race.protected.items()}
    ranked, best = judge(chosen, scores, places, priced)
    done = replace(plan, rungs=plan.rungs[: len(clock.rounds)], verdict_seeds=len(seeds))  # a budget may cut it short
    evidence = describe(task, done, opening.name, settings, seeds, ranked, best)
    outcome = Outcome(best.config, DEFAULT in best.roles, ranked, evidence, clock.elapsed, clock.done)
    if front is not None:
        record.trade_off(front, [(f.config, f.valid, f.cost or 0.0) for f in ranked if np.isfinite(f.valid)])
    record.note(
        finalists=[asdict(finalist) | {"config": finalist.config.to_dict()} for finalist in ranked],
        spent={
            "seconds": None if resume else clock.elapsed,
            "work": clock.done + record.recalled,
            "rounds": clock.rounds,
        },
        outcome=best.config.to_dict() | {EVIDENCE: evidence},  # last, since it says that the search is finished
    )
    return outcome


def final(
    population: Population | Reaching,
    record: Record,
    configs: Sequence[Config],
    seeds: Sequence[int],
    steps: int,
    clock: Clock,
) -> Scores:
    """The metric `[F, S]` of the finalists on the valid and the test split: trained, or recalled, and recorded."""
    done = record.recall_verdict(steps, seeds)
    fresh = [config for config in configs if config not in done]

    def note(part: Sequence[Config], scores: Scores) -> None:
        done.update({config: {split: v[i] for split, v in scores.items()} for i, config in enumerate(part)})
        record.report_verdict(steps, seeds, done)
        clock.kept()

    record.report_verdict(steps, seeds, done)
    clock.training(len(fresh) * len(seeds) * steps)
    among = configs if len(fresh) < len(configs) else ()
    population.train(fresh, seeds, steps, splits=("valid", "test"), progress=clock.advance, report=note, among=among)
    return {split: np.stack([done[config][split] for config in configs]) for split in ("valid", "test")}


def lists(sampler: str | BaseSampler, space: Space, arms: int) -> bool:
    """Whether the first round goes through a list of subsets, `arms` of which there is room for."""
    return sampler == GRID or (sampler == AUTO and space.size <= arms)


def planned(task: Task, space: Space, clock: Clock, sampler: str | BaseSampler) -> Plan:
    """The plan of a search for which there is none: what fits the budget, else the standard one.

    Args:
        task, space, clock, sampler: of the search; the clock calibrated where there is a budget.
    """
    if clock.budget is None:
        arms = LISTED if lists(sampler, space, LISTED) else EXPLORED
        return make_plan(task.steps, arms=arms, survivors=task.survivors)
    plan = plan_for(task.steps, space.size, len(lr_grid(*task.lr_range)), clock.affordable, task.survivors)
    if plan.steps < task.steps:
        warnings.warn(
            f"in this budget there is time for trainings of {plan.steps} steps, not of the task's {task.steps}; "
            "what is best for short ones may not be for long ones.",
            stacklevel=3,
        )
    return plan


def chosen_sampler(sampler: str | BaseSampler, seed: int) -> BaseSampler:
    """The sampler of a name, the default one where a grid may do; ConfigError for a name that there is not."""
    if isinstance(sampler, BaseSampler):
        return sampler
    if sampler in (AUTO, GRID):
        return samplers.named(seed=seed)
    if sampler not in samplers.SAMPLERS:
        raise unknown("sampler", sampler, [AUTO, GRID, *samplers.SAMPLERS])
    return samplers.named(sampler, seed % 2**32)

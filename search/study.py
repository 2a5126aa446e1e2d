"""The search: plan, race, verdict on fresh seeds, and the evidence that goes with the exported config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count, islice
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from autoranger.components.core.config import EVIDENCE
from autoranger.components.core.errors import ConfigError, SearchError, unknown
from autoranger.search import SPACE, samplers
from autoranger.search.clock import Clock, OutOfTime
from autoranger.search.cost import Cost
from autoranger.search.engine.engine import Engine
from autoranger.search.population.checkpoint import Checkpoints
from autoranger.search.progress import Progress
from autoranger.search.proxy import Proxy
from autoranger.search.race.baselines import families
from autoranger.search.race.compete import compete, require_reached, sweep
from autoranger.search.race.explore import Exploration
from autoranger.search.race.objectives import METRIC
from autoranger.search.race.plan import EXPLORED, LISTED, Plan, fitting
from autoranger.search.race.race import Grid, Opening, Race, Standings, best_value, require_finite
from autoranger.search.space import Space
from autoranger.search.storage.front import front as make_front
from autoranger.search.storage.front import trade_off
from autoranger.search.storage.record import ORIGIN, Record
from autoranger.search.subject import Subject
from autoranger.search.tasks.task import Task
from autoranger.search.verdict.evidence import compared, judge, uncompared
from autoranger.search.verdict.outcome import Outcome, Settings

AUTO, GRID = "auto", "grid"
"""Openings besides the samplers: a grid if the plan has room for every subset, and a grid in any case."""

SEEDS = 1_000_000
"""Distance between the first seeds of two searches. The second half is for what is trained before the race."""


def search(
    task: Task,
    storage: BaseStorage,
    study: str,
    *,
    space: Space | str | Sequence[str] = SPACE,
    seed: int = 0,
    budget: float | None = None,
    plan: Plan | None = None,
    sampler: str | BaseSampler = AUTO,
    refine: bool = True,
    objective: str = METRIC,
    cost: Cost | None = None,
    resume: bool = False,
    engine: Engine | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
    began: float | None = None,
) -> Outcome:
    """Finds the best subset of components for a task, with its learning rate.

    Args:
        task: what to train.
        storage: Optuna storage of the trials.
        study: name of the study in it.
        space: what to choose from: a `Space`, or what `Space.of` takes, such as "ranger21". That of `SPACE` by default.
        seed: of all random numbers; the same seed and plan give the same result on the same machine.
        budget: most seconds that the search takes; no limit if None. If that is too short for a race and a verdict at
            the proxy's full length, the result is the default with a swept learning rate.
        plan: the rounds; if None the standard plan, or the largest one that fits the budget.
        sampler: chooses what the first round trains: a name in `samplers.SAMPLERS`, a sampler of Optuna, or "grid" for
            every subset with a grid of learning rates. By default the grid if the plan has room for all subsets,
            otherwise `samplers.DEFAULT`.
        refine: whether the numbers of the race's leaders are refined (see `race.refine`), if the plan has room for it.
        objective: what to improve: the task's `metric` at the end, `loss`, or the steps to a value of the metric, as in
            `steps:0.95`.
        cost: of a config's optimizer, such as `cost.memory()`. Subsets on the Pareto front of metric and cost stay in
            the race, and the finalists become a second study of two objectives. The verdict ignores the cost.
        resume: whether to continue the study of that name.
        engine: has workers that train the candidates, as that of `crew.engine` has; by default this process trains.
        checkpoints: of the study's trainings, so that a long one that is interrupted goes on where it was. By default
            it begins anew.
        progress: is told how the search goes.
        began: when the budget began, by `time.monotonic`; now by default.

    Raises:
        ConfigError: if the study exists and is not to be resumed, or does not exist and is; if the task is invalid or
            training makes its metric worse; if the sampler or the objective is unknown, or no training reaches it.
        DataError: if the task's data are missing.
        SearchError: if there is nothing to recommend: everything diverged, or there is no time even for a sweep of
            learning rates.
    """
    clock = Clock(budget, progress or Progress(), began)  # the checks of the task count
    outcome = conduct(
        Proxy(task, objective, engine, checkpoints),
        clock,
        storage,
        study,
        space=Space.of(space),
        seed=seed,
        plan=plan,
        sampler=sampler,
        refine=refine,
        cost=cost,
        resume=resume,
    )
    if checkpoints is not None:
        checkpoints.clear()
    return outcome


def conduct(
    subject: Subject,
    clock: Clock,
    storage: BaseStorage,
    study: str,
    *,
    space: Space,
    seed: int,
    plan: Plan | None,
    sampler: str | BaseSampler,
    refine: bool,
    cost: Cost | None,
    resume: bool,
) -> Outcome:
    """A search for whatever can be trained; see `search`.

    Args:
        subject: what to train.
        clock: has the budget.
        storage, study, space, seed, plan, sampler, refine, cost, resume: as `search` has them.
    """
    chooser = chosen_sampler(sampler, seed)
    lrs, trainer, cost_of = subject.lrs, subject.trainer, None if cost is None else cost.of
    asked: dict[str, Any] = {
        "seed": seed,
        "budget": clock.budget,
        "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__,
        "objective": subject.objective,
        "cost": None if cost is None else cost.name,
        "components": tuple(space.components),
        "refine": refine,
    }
    identity = subject.identity(space.default)
    known = asdict(settings_of(subject, asked)) | identity | subject.learned
    record = Record(storage, study, space, known, resume=resume)
    record.note(**{ORIGIN: subject.origin})
    front = None if cost is None else make_front(storage, study)
    fresh, early = (seed_stream(seed * SEEDS + offset) for offset in (0, SEEDS // 2))
    swept, sweep_seeds, finals, opened_by = Standings(), list[int](), None, ""
    try:
        subject.calibrate(clock, [space.default, space.plain], seed_stream(seed * SEEDS + SEEDS // 2))
        settings, steps = settings_of(subject, asked), subject.about.steps
        record.note(settings=asdict(settings) | identity | subject.learned)
        record.name_metric(f"valid {settings.metric}")
        if clock.budget is not None:
            sweep_seeds = early(clock.sweep_seeds(len(lrs), steps))
            swept = sweep(Race(trainer, record, {}, clock), space.default, lrs, steps, sweep_seeds)
        if record.plan is None:
            subject.check(space.plain, clock, early)
        plan = plan or record.plan or planned(subject, space, clock, sampler, refine=refine)
        if plan is not None:
            plan = plan if refine else replace(plan, refine=None)
            called = samplers.DEFAULT if sampler == AUTO else settings.sampler
            opening: Opening = Exploration(space, lrs, chooser, plan.arms, seed, called)
            if lists(sampler, space, plan.arms):
                opening = Grid(space.arms(plan.arms, seed), lrs)
            opened_by = opening.name
            record.note(plan=asdict(plan), opening=opened_by)
            race = Race(trainer, record, families(space), clock, cost_of)
            with suppress(OutOfTime):
                finals = compete(race, opening, plan, fresh)
        if plan is not None and finals is not None:
            judged = judge(finals.configs, finals.scores, finals.roles, cost_of)
            best, finalist = next((config, f) for config, f in judged.items() if f.exported)
            if not np.isfinite(finalist.valid):
                raise SearchError(
                    f"every training of full Ranger21 with lr {best.lr:g} diverged on the fresh seeds, and nothing "
                    "beats it; begin with lower rates (lr_range)."
                )
            # Rounds and seeds may have been cut short.
            done = replace(plan, rungs=tuple(race.rungs), refine=race.refinement, verdict_seeds=len(finals.seeds))
            evidence = compared(settings, done, opened_by, finals.seeds, list(judged.values()), subject.shared)
            merits, work = {config: f.valid for config, f in judged.items()}, plan.steps * len(finals.seeds)
        else:
            require_reached(trainer)
            require_finite(swept, steps, trainer.failures)
            needed = None if plan else clock.needed(cheapest(subject, space, clock))
            best, finalist, evidence = uncompared(settings, space.default, swept, sweep_seeds, needed)
            judged, merits, work = {best: finalist}, {best: best_value(swept[space.default])}, 0
        record.conclude(best, merits, work)
    except (ConfigError, SearchError) as error:
        record.note(failure=str(error))
        raise
    finally:
        record.close()
    found_on: dict[str, Any] = {"proxy": scale} if (scale := subject.scale) else {}
    finalists = [
        replace(finalist, config={**finalist.config, **found_on}, trials=record.tried(config))
        for config, finalist in judged.items()
    ]
    exported = replace(best, **found_on)
    outcome = Outcome(exported, finalists, evidence, clock.elapsed, clock.done)
    if front is not None:
        trade_off(front, space, [(c, f.valid, f.cost or 0.0) for c, f in judged.items() if np.isfinite(f.valid)])
    record.note(
        finalists=[asdict(finalist) for finalist in outcome.finalists],
        spent={
            "seconds": None if resume else clock.elapsed,
            "work": clock.done + record.recalled,
            "rounds": clock.rounds,
        },
        outcome=exported.to_dict() | {EVIDENCE: evidence.to_dict()},  # last, since it says that the search is finished
    )
    return outcome


def seed_stream(first: int) -> Callable[[int], list[int]]:
    """A function that returns the next `size` integers from `first` on."""
    rest = count(first)
    return lambda size: list(islice(rest, size))


def lists(sampler: str | BaseSampler, space: Space, arms: int) -> bool:
    """Whether the first round trains a list of subsets; there is room for `arms`."""
    return sampler == GRID or (sampler == AUTO and space.size <= arms)


def planned(subject: Subject, space: Space, clock: Clock, sampler: str | BaseSampler, *, refine: bool) -> Plan | None:
    """The standard plan, or with a budget the largest plan that fits it; None if none does.

    The smallest plan is tried if its first round and a verdict fit without a reserve: other rounds can be left out.

    Args:
        subject, space, clock, sampler, refine: of the search. With a budget the clock must be calibrated.
    """
    most = LISTED if lists(sampler, space, LISTED) else EXPLORED
    if clock.budget is None:
        return subject.standard(most)
    plans = [plan if refine else replace(plan, refine=None) for plan in subject.plans(most)]
    fit = fitting(plans, space.size, len(subject.lrs), clock.affordable, clock.scoring)
    return fit or (plans[0] if cheapest(subject, space, clock) <= clock.utmost else None)


def cheapest(subject: Subject, space: Space, clock: Clock) -> int:
    """Candidate-steps of the least that compares anything: the first round of the cheapest plan, and a verdict."""
    return subject.plans(LISTED)[0].shortest.cost(space.size, len(subject.lrs), scoring=clock.scoring)


def settings_of(subject: Subject, asked: Mapping[str, Any]) -> Settings:
    """What a search was asked for, of what, as far as that is known."""
    about = subject.about
    return Settings(
        task=about.name,
        metric=about.score_name,
        steps=about.steps,
        batch_size=about.batch_size,
        lr_range=(about.lr_range[0], about.lr_range[1]),
        device=about.device.type,
        **asked,
    )


def chosen_sampler(sampler: str | BaseSampler, seed: int) -> BaseSampler:
    """The sampler of a name, the default one for `AUTO` and `GRID`; raises ConfigError for an unknown name."""
    if isinstance(sampler, BaseSampler):
        return sampler
    if sampler in (AUTO, GRID):
        return samplers.named(seed=seed)
    if sampler not in samplers.SAMPLERS:
        raise unknown("sampler", sampler, [AUTO, GRID, *samplers.SAMPLERS])
    return samplers.named(sampler, seed % 2**32)

"""The search: plan, race, verdict on fresh seeds, and the evidence that goes with the exported config."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import count, islice
from typing import Any

import numpy as np
from optuna.storages import BaseStorage

from autoranger.components.config import EVIDENCE, Config
from autoranger.search.clock import Clock
from autoranger.search.plan import Plan, make_plan, plan_for
from autoranger.search.population import Population, Scores
from autoranger.search.progress import Progress
from autoranger.search.race import Race, best_lr, mean
from autoranger.search.record import Record
from autoranger.search.space import Space, lr_grid
from autoranger.search.tasks.task import Task
from autoranger.search.verdict import LEVEL, Difference, compare, winner


@dataclass(frozen=True)
class Finalist:
    """A candidate of the verdict.

    Args:
        config: with its best learning rate of the race.
        valid, test: mean metric over the fresh seeds. Test data are touched here, once, and decide nothing.
        diverged: seeds on which the training diverged.
        against_default, against_plain: paired differences of the validation metric to the space's default (full
            Ranger21) and to the plain optimizer (AdamW), each with its own best learning rate.
    """

    config: Config
    valid: float
    test: float
    diverged: int
    against_default: Difference
    against_plain: Difference


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Args:
        config: to be exported: the winner, or the default where nothing beats it significantly.
        default_kept: whether it is the default.
        finalists: all candidates of the verdict, best validation metric first; the default and plain ones among them.
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
        resume: whether to continue the study of that name.
        progress: listens.

    Raises:
        ConfigError: where the study exists and is not resumed, or the other way round, or the task's model fails.
        DataError: where the task's data are missing.
    """
    space, clock = space or Space(), Clock(budget, progress or Progress())
    lrs = lr_grid(*task.lr_range)
    settings = {
        "task": task.name,
        "steps": task.steps,
        "batch_size": task.batch_size,
        "seed": seed,
        "budget": budget,
        "components": list(space.components),
    }
    population = Population(task)
    record = Record(storage, study, space, settings, resume=resume)
    try:
        if plan is None and budget is not None:
            clock.calibrate(population, [replace(arm, lr=lrs[0]) for arm in (space.default, space.plain)])
            plan = plan_for(task.steps, space.size, len(lrs), clock.affordable)
        plan = plan or make_plan(task.steps)
        numbers = count(seed * 1_000_000)

        def fresh_seeds(size: int) -> list[int]:
            return list(islice(numbers, size))

        race = Race(population, record, [space.default, space.plain], clock)
        finalists = race.run(space.arms(plan.arms, seed), lrs, plan, fresh_seeds)
        chosen = [replace(arm, lr=best_lr(by_lr)) for arm, by_lr in finalists.items()]
        seeds = fresh_seeds(clock.verdict_seeds(plan, len(chosen)))
        clock.verdict(len(chosen), len(seeds))
        clock.training(len(chosen) * len(seeds) * plan.steps)
        scores = population.train(chosen, seeds, plan.steps, splits=("valid", "test"), progress=clock.advance)
    finally:
        record.close()
    places = [list(finalists).index(arm) for arm in (space.default, space.plain)]
    ranked, best = judge(chosen, scores, *places)
    evidence = describe(task, plan, settings, seeds, ranked, best, default=chosen[places[0]], plain=chosen[places[1]])
    record.study.set_user_attr("outcome", json.loads(json.dumps(best.config.to_dict() | {EVIDENCE: evidence})))
    return Outcome(best.config, best.config == chosen[places[0]], ranked, evidence, clock.elapsed, clock.done)


def judge(configs: list[Config], scores: Scores, default: int, plain: int) -> tuple[list[Finalist], Finalist]:
    """The finalists, best first, and the one to export: the winner, or the default where there is none.

    Args:
        configs: of the finalists.
        scores: metric `[F, S]` of the splits valid and test.
        default, plain: which of the finalists are the baselines.
    """
    valid, test = scores["valid"], scores["test"]
    rivals = [i for i in range(len(configs)) if i != default]
    # As many comparisons as rivals: the intervals hold for all of them together.
    level = LEVEL / max(1, len(rivals))
    finalists = [
        Finalist(
            config=config,
            valid=mean(valid[i]),
            test=mean(test[i]),
            diverged=int(np.isnan(valid[i]).sum()),
            against_default=compare(valid[i], valid[default], level),
            against_plain=compare(valid[i], valid[plain], level),
        )
        for i, config in enumerate(configs)
    ]
    won = winner(valid[rivals], valid[default])
    best = finalists[default if won is None else rivals[won]]
    return sorted(finalists, key=lambda f: -np.nan_to_num(f.valid, nan=-np.inf)), best


def describe(
    task: Task,
    plan: Plan,
    settings: dict[str, Any],
    seeds: list[int],
    finalists: list[Finalist],
    best: Finalist,
    *,
    default: Config,
    plain: Config,
) -> dict[str, Any]:
    """The evidence of a config file: what was compared, how, and how certain it is."""
    kept = best.config == default
    by_config = {finalist.config: finalist for finalist in finalists}
    verdict = "nothing beats the default significantly; it is kept" if kept else "beats the default significantly"
    return {
        "verdict": verdict,
        "task": task.name,
        "metric": task.metric_name,
        "seed": settings["seed"],
        "budget_seconds": settings["budget"] or "standard plan",
        "components": settings["components"],
        "valid": best.valid,
        "test": best.test,
        "default": {"lr": default.lr, "valid": by_config[default].valid, "test": by_config[default].test},
        "adamw": {"lr": plain.lr, "valid": by_config[plain].valid, "test": by_config[plain].test},
        "against_default": asdict(best.against_default),
        "against_adamw": asdict(best.against_plain),
        "confidence": 1 - LEVEL,
        "comparisons": len(finalists) - 1,
        "verdict_seeds": [seeds[0], seeds[-1]],
        "batch_size": task.batch_size,
        "plan": plan.to_dict(),
        "device": task.device.type,
        "versions": {name: version(name) for name in ("autoranger", "torch", "numpy", "optuna")}
        | {"python": platform.python_version()},
    }

"""The finalists on fresh seeds, which of them is exported, and the evidence that goes with its config."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from autoranger.components.core.config import Config
from autoranger.search.population.population import Scores
from autoranger.search.race.plan import Plan
from autoranger.search.race.race import Scores as ByRate
from autoranger.search.race.race import best_lr, mean, pareto
from autoranger.search.subject import About
from autoranger.search.verdict.verdict import LEVEL, Difference, against, winner

DEFAULT, PLAIN = "default", "adamw"
"""Roles of the baselines that every search has: full Ranger21 and AdamW."""


@dataclass(frozen=True)
class Finalist:
    """A candidate of the verdict.

    Args:
        config: with its best learning rate of the race.
        roles: the baselines that it is: "default", "adamw", "random"; none, one or several.
        valid, test: mean metric over the fresh seeds. Test data are touched here, once, and decide nothing.
        diverged: seeds on which the training diverged.
        against_default, against_plain: paired differences of the validation metric to the space's default (full
            Ranger21) and to the plain optimizer (AdamW), each with its own best learning rate; None where there was no
            time for a comparison.
        cost: of its optimizer, where the search was asked to look at it.
        on_front: whether no other finalist is both better and no more expensive; None where there is no cost.
    """

    config: Config
    roles: tuple[str, ...]
    valid: float
    test: float
    diverged: int
    against_default: Difference | None
    against_plain: Difference | None
    cost: float | None = None
    on_front: bool | None = None


def judge(
    configs: Sequence[Config],
    scores: Scores,
    roles: Mapping[str, int],
    cost: Callable[[Config], float] | None = None,
) -> tuple[list[Finalist], Finalist]:
    """The finalists, best first, and the one to export: the winner, or the default where there is none.

    Args:
        configs: of the finalists.
        scores: metric `[F, S]` of the splits valid and test.
        roles: which of the finalists are the baselines; the default and AdamW must be among them.
        cost: of a config, if that matters. It decides nothing.
    """
    valid, test, default = scores["valid"], scores["test"], roles[DEFAULT]
    rivals = max(1, len(configs) - 1)
    to_default, to_plain = (against(valid, valid[roles[role]], rivals) for role in (DEFAULT, PLAIN))
    finalists = [
        Finalist(
            config=config,
            roles=tuple(role for role, place in roles.items() if place == i),
            valid=mean(valid[i]),
            test=mean(test[i]),
            diverged=int(np.isnan(valid[i]).sum()),
            against_default=to_default[i],
            against_plain=to_plain[i],
            cost=cost and cost(config),
        )
        for i, config in enumerate(configs)
    ]
    finalists = ranked(finalists)
    won = winner(to_default)
    chosen = configs[default if won is None else won]
    return finalists, next(finalist for finalist in finalists if finalist.config == chosen)


def ranked(finalists: Sequence[Finalist]) -> list[Finalist]:
    """Best first, and marked where they are on the front."""
    ordered = sorted(finalists, key=lambda f: -np.nan_to_num(f.valid, nan=-np.inf))
    costs = {finalist.config: finalist.cost for finalist in ordered if finalist.cost is not None}
    if len(costs) < len(ordered):
        return ordered
    front = pareto({finalist.config: finalist.valid for finalist in ordered}, costs.__getitem__)
    return [replace(finalist, on_front=finalist.config in front) for finalist in ordered]


def describe(
    task: About,
    plan: Plan,
    sampler: str,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    finalists: Sequence[Finalist],
    best: Finalist,
) -> dict[str, Any]:
    """The evidence of a config file: what was compared, how, and how certain it is."""
    by_role = {role: finalist for finalist in finalists for role in finalist.roles}
    kept, to_default, to_plain = DEFAULT in best.roles, best.against_default, best.against_plain
    assert to_default is not None
    assert to_plain is not None
    verdict = "nothing beats the default significantly; it is kept" if kept else "beats the default significantly"
    baselines = {role: {"lr": f.config.lr, "valid": f.valid, "test": f.test} for role, f in by_role.items()}
    return {
        "verdict": f"{verdict} (trainings of {plan.steps} steps, {len(seeds)} fresh seeds)",
        **about(task, settings),
        "sampler": sampler,
        "valid": best.valid,
        "test": best.test,
        **baselines,
        "against_default": asdict(to_default),
        "against_adamw": asdict(to_plain),
        "confidence": 1 - 2 * LEVEL,
        "comparisons": len(finalists) - 1,
        "verdict_seeds": [seeds[0], seeds[-1]],
        "plan": plan.to_dict(),
    }


def uncompared(
    task: About, settings: Mapping[str, Any], default: Config, swept: ByRate, seeds: Sequence[int], needed: float | None
) -> tuple[Finalist, dict[str, Any]]:
    """What is exported where there is no time for a comparison: the default at the best rate of a sweep, and why.

    Args:
        task, settings: of the search.
        default: the arm.
        swept: its metric at each rate.
        seeds: of the sweep.
        needed: seconds that a comparison would take, where that is known.
    """
    by_rate = swept[default]
    best = replace(default, lr=best_lr(by_rate))
    rates = f"{len(by_rate)} learning rates, trainings of {task.steps} steps on {len(seeds)} seeds"
    evidence = {
        "verdict": f"no time for a comparison; the default at the best of {rates}",
        **about(task, settings),
        "comparisons": 0,
        "sweep": {
            "steps": task.steps,
            "seeds": [seeds[0], seeds[-1]],
            "lrs": sorted(by_rate),
            "valid": [mean(by_rate[lr]) for lr in sorted(by_rate)],
        },
        "plan": {"steps": task.steps},
    }
    if needed is not None:
        evidence["comparison_seconds"] = needed
    unknown = float("nan")
    return Finalist(best, (DEFAULT,), unknown, unknown, 0, None, None), evidence


def about(task: About, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What was searched, and on what."""
    return {
        "task": task.name,
        "metric": task.metric_name,
        "proxy_steps": task.steps,
        **({"batch_size": settings["batch_size"]} if "batch_size" in settings else {}),
        "seed": settings["seed"],
        "budget_seconds": settings["budget"] or "standard plan",
        "objective": settings["objective"],
        "cost": settings["cost"] or "none",
        "components": settings["components"],
        "device": task.device.type,
        "versions": {name: version(name) for name in ("autoranger", "torch", "numpy", "optuna")}
        | {"python": platform.python_version()},
    }

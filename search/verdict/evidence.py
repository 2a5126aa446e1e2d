"""Judges the finalists on fresh seeds, and makes the evidence that goes with the exported config."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from autoranger.components.core.config import Config
from autoranger.search.population.population import Scores
from autoranger.search.race.baselines import ADAMW, DEFAULT, called
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.race.race import Standings, best_lr, mean, pareto
from autoranger.search.verdict.outcome import (
    Baseline,
    Comparison,
    Evidence,
    Finalist,
    Settings,
    Sweep,
)
from autoranger.search.verdict.statistics import LEVEL, against, against_best, winner


def judge(
    configs: Sequence[Config],
    scores: Scores,
    roles: Mapping[str, int],
    cost: Callable[[Config], float] | None = None,
) -> dict[Config, Finalist]:
    """The finalists by config, best first. The winner is exported, or the default if there is none.

    Args:
        configs: of the finalists.
        scores: metric `[F, S]` of the splits valid and test.
        roles: indices of the baselines among the finalists, by role; the default and AdamW must be there.
        cost: of a config; None if it does not matter. It does not influence the verdict.
    """
    valid, test, default = scores["valid"], scores["test"], roles[DEFAULT]
    rivals = max(1, len(configs) - 1)
    to_default, to_adamw = (against(valid, valid[roles[role]], rivals) for role in (DEFAULT, ADAMW))
    to_best = against_best(valid, sorted(set(roles.values())), rivals)
    named = {place: role for role, place in reversed(list(roles.items()))}  # by its first role
    won = winner(to_default)
    chosen = default if won is None else won
    means = {config: mean(values) for config, values in zip(configs, valid, strict=True)}
    front = None if cost is None else pareto(means, cost)
    finalists = {
        config: Finalist(
            config=config.to_dict(),
            exported=i == chosen,
            roles=tuple(role for role, place in roles.items() if place == i),
            valid=means[config],
            test=mean(test[i]),
            diverged=int(np.isnan(valid[i]).sum()),
            against_default=to_default[i],
            against_adamw=to_adamw[i],
            against_best=to_best[i][0],
            rival=named[to_best[i][1]],
            cost=cost and cost(config),
            on_front=None if front is None else config in front,
        )
        for i, config in enumerate(configs)
    }
    return {
        config: finalists[config] for config in sorted(configs, key=lambda c: -np.nan_to_num(means[c], nan=-np.inf))
    }


def compared(
    settings: Settings,
    plan: Plan,
    opening: str,
    seeds: Sequence[int],
    finalists: Sequence[Finalist],
    shared: int | None = None,
) -> Evidence:
    """The evidence of a search with a comparison.

    Args:
        settings: of the search.
        plan: what was trained.
        opening: name of the first round's opening.
        seeds: the fresh seeds.
        finalists: their results.
        shared: see `Comparison`.
    """
    best = next(finalist for finalist in finalists if finalist.exported)
    assert best.against_default is not None
    assert best.against_adamw is not None
    assert best.against_best is not None
    assert best.rival is not None
    verdict = "nothing beats the default significantly; it is kept"
    if DEFAULT not in best.roles:
        verdict = "beats the default significantly" + (
            ", and every baseline" if best.against_best.low > 0 else f", but not every baseline: {called(best.rival)}"
        )
    return Evidence(
        verdict=f"{verdict} (trainings of {plan.steps} steps, {len(seeds)} fresh seeds)",
        settings=settings,
        plan=plan,
        versions=versions(),
        comparison=Comparison(
            opening=opening,
            seeds=(seeds[0], seeds[-1]),
            comparisons=len(finalists) - 1,
            confidence=1 - 2 * LEVEL,
            valid=best.valid,
            test=best.test,
            baselines={role: Baseline(f.lr, f.valid, f.test) for f in finalists for role in f.roles},
            against_default=best.against_default,
            against_adamw=best.against_adamw,
            against_best=best.against_best,
            rival=best.rival,
            shared=shared,
        ),
    )


def uncompared(
    settings: Settings, default: Config, swept: Standings, seeds: Sequence[int], needed: float | None
) -> tuple[Config, Finalist, Evidence]:
    """The result without time for a comparison: the default at the best rate of a sweep, and the evidence that says so.

    Args:
        settings: of the search.
        default: the arm.
        swept: its results at each rate.
        seeds: of the sweep.
        needed: budget in seconds that a comparison would take; None if that is not known.
    """
    by_rate, steps = swept[default], settings.steps
    best, lrs, unknown = replace(default, lr=best_lr(by_rate)), sorted(by_rate), float("nan")
    on = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    rates = f"{len(lrs)} learning rates, trainings of {steps} steps on {on}"
    evidence = Evidence(
        verdict=f"no time for a comparison; the default at the best of {rates}",
        settings=settings,
        plan=Plan(arms=1, rungs=(Rung(steps, len(seeds), keep=1, lrs=len(lrs)),), verdict_seeds=0, steps=steps),
        versions=versions(),
        sweep=Sweep((seeds[0], seeds[-1]), tuple(lrs), tuple(mean(by_rate[lr]) for lr in lrs), needed),
    )
    return best, Finalist(best.to_dict(), True, (DEFAULT,), unknown, unknown, 0, None, None), evidence


def versions() -> dict[str, str]:
    """Versions of the packages and of Python."""
    packages = ("autoranger", "torch", "numpy", "optuna")
    return {name: version(name) for name in packages} | {"python": platform.python_version()}

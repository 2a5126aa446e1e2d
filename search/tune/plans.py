"""How much a search does where every training counts: tens of candidates, and more where there is the time."""

from __future__ import annotations

from dataclasses import replace

from autoranger.search.race.plan import Plan, Rung, ladder

LEAST = 8
"""Seeds of the verdict in the plans for little time."""

STANDARD = 1
"""The plan, in `plans`, of a search without a budget."""


def plans(steps: int, *, shortened: bool) -> list[Plan]:
    """The plans for trainings of `steps`, the cheapest first.

    Cheap ones have two rounds or one. With four learning rates they take about 70, 110, 150 and 240 full trainings, if
    there are shorter ones for the first round; 50 to 60 of them are for the baselines.

    Args:
        steps: of a full training.
        shortened: whether there are shorter ones; otherwise the first round has full ones, too, on one seed.
    """
    first = max(1, steps // 2) if shortened else steps
    few = [
        Plan(5, (Rung(first, seeds=1, keep=1, lrs=99),), LEAST, steps),
        Plan(8, (Rung(first, seeds=1, keep=3, lrs=99), Rung(steps, seeds=1, keep=2, lrs=3)), LEAST, steps),
        Plan(12, (Rung(first, seeds=1, keep=4, lrs=99), Rung(steps, seeds=2, keep=3, lrs=3)), LEAST, steps),
        Plan(16, (Rung(first, seeds=1, keep=6, lrs=99), Rung(steps, seeds=2, keep=3, lrs=3)), 2 * LEAST, steps),
    ]
    return few + [lengthened(plan, first) for plan in ladder(steps) if plan.arms >= 16]


def lengthened(plan: Plan, first: int) -> Plan:
    """The plan with a first round of this length."""
    opening, *others = plan.rungs
    return replace(plan, rungs=(replace(opening, steps=first), *others))

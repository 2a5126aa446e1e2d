"""Plans for a search in which each training is expensive: tens of candidates, and more if there is time."""

from __future__ import annotations

from dataclasses import replace

from autoranger.search.race.plan import LISTED, Plan, Refinement, Rung, ladder

LEAST = 8
"""Seeds of the verdict in the cheap plans."""

REFINEMENT = Refinement(leaders=2, draws=8, seeds=1, keep=4, more=1)
"""Of the first plans: 24 trainings, and up to two more finalists; left out if a budget has no room for it."""

STANDARD = 2
"""Index in `plans` of the plan for a search without a budget."""


def plans(steps: int, most: int = LISTED, *, shortened: bool) -> list[Plan]:
    """The plans, cheapest first.

    The first five have one or two rounds. With four learning rates they take about 70, 100, 150, 190 and 290 full
    trainings, if those of the first round can be shortened; 30 to 60 of them are for the baselines.

    Args:
        steps: of a full training.
        most: entrants, at most.
        shortened: whether trainings can be shortened. If not, those of the first round have full length.
    """
    first = max(1, steps // 2) if shortened else steps
    last = Rung(steps, seeds=2, keep=3, lrs=3)
    few = [
        Plan(3, (Rung(first, seeds=1, keep=1, lrs=99),), LEAST // 2, steps, REFINEMENT),
        Plan(5, (Rung(first, seeds=1, keep=1, lrs=99),), LEAST, steps, REFINEMENT),
        Plan(8, (Rung(first, seeds=1, keep=3, lrs=99), Rung(steps, 1, keep=2, lrs=3)), LEAST, steps, REFINEMENT),
        Plan(12, (Rung(first, seeds=1, keep=4, lrs=99), last), LEAST, steps, REFINEMENT),
        Plan(16, (Rung(first, seeds=1, keep=6, lrs=99), last), 2 * LEAST, steps, REFINEMENT),
    ]
    return few + [lengthened(plan, first) for plan in ladder(steps, most=most) if plan.arms >= 16]


def lengthened(plan: Plan, first: int) -> Plan:
    """The plan with a first round of `first` steps."""
    opening, *others = plan.rungs
    return replace(plan, rungs=(replace(opening, steps=first), *others))

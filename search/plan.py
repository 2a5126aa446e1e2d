"""How much a search does: the rungs of a race and the verdict, from a task's defaults or to fit a time budget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autoranger.components.errors import ConfigError

LISTED = 256
"""Subsets that the standard plan trains all of: those of Ranger21."""

SURVIVORS = 1 / 3
"""Share of the subsets that goes on after the first round, where nothing is known of a task."""


@dataclass(frozen=True)
class Rung:
    """One round: every arm that is left, trained from scratch for `steps` with `seeds` new seeds.

    Args:
        steps: length of each training; schedules are scaled to it.
        seeds: trainings of each candidate.
        keep: arms that go on to the next round.
        lrs: learning rates of each arm to begin with, those nearest to its best of the round before.
    """

    steps: int
    seeds: int
    keep: int
    lrs: int


@dataclass(frozen=True)
class Plan:
    """The rounds of a race and its verdict.

    Args:
        arms: subsets that enter, at most.
        rungs: the rounds, in order. The last one keeps the finalists.
        verdict_seeds: fresh seeds for the verdict.
        steps: length of the trainings of the verdict.
    """

    arms: int
    rungs: tuple[Rung, ...]
    verdict_seeds: int
    steps: int

    def cost(self, arms: int, lrs: int, first: int = 0) -> int:
        """Candidate-steps from round `first` on, with `arms` entrants and a grid of `lrs`, without its extensions."""
        entrants, total = min(self.arms, arms), 0
        for rung in self.rungs[first:]:
            total += entrants * min(rung.lrs, lrs) * rung.seeds * rung.steps
            entrants = min(rung.keep, entrants)
        return total + (entrants + 3) * self.verdict_seeds * self.steps

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """A plan from plain data."""
        return cls(**{**data, "rungs": tuple(Rung(**rung) for rung in data["rungs"])})


def make_plan(steps: int, *, arms: int = LISTED, effort: int = 1, survivors: float = SURVIVORS) -> Plan:
    """The plan for proxy runs of `steps`, `arms` entrants and `effort` times the standard number of seeds.

    The first round is half as long as the real one; it is no shorter because ranks of subsets at a third of the length
    agree poorly with those at full length (rank correlation 0.59 on digits). The share of `survivors` goes on.
    """
    kept = max(4, round(arms * survivors))
    half = max(1, steps // 2)
    return Plan(
        arms=arms,
        rungs=(
            Rung(steps=half, seeds=effort, keep=kept, lrs=99),
            Rung(steps=steps, seeds=2 * effort, keep=max(4, kept // 4), lrs=3),
            Rung(steps=steps, seeds=6 * effort, keep=4, lrs=2),
        ),
        verdict_seeds=32 * effort,
        steps=steps,
    )


def plan_for(steps: int, arms: int, lrs: int, affordable: float, survivors: float = SURVIVORS) -> Plan:
    """The largest plan of a fixed ladder that costs at most `affordable` candidate-steps, or the smallest one.

    With little time the race first takes fewer entrants and only then shorter runs: a short proxy selects another
    optimizer. With much time it takes more seeds. The ladder is coarse, so that a repetition
    on the same machine finds the same plan in spite of timing noise.
    """
    shorter = [(max(8, steps // divisor), 8, 1) for divisor in (16, 8, 4, 2)]
    fuller = [(steps, entrants, 1) for entrants in (8, 16, 32, 64, 128, LISTED)]
    longer = [(steps, LISTED, effort) for effort in (2, 4, 8, 16)]
    ladder = [
        make_plan(length, arms=entrants, effort=effort, survivors=survivors)
        for length, entrants, effort in (*shorter, *fuller, *longer)
    ]
    fitting = [plan for plan in ladder if plan.cost(arms, lrs) <= affordable]
    return fitting[-1] if fitting else ladder[0]


def parse_budget(text: str) -> float:
    """Seconds in a duration such as `90`, `90s`, `10m` or `1.5h`; ConfigError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"budget is '{text}', but must be a duration such as 90s, 10m or 1.5h.")
    return seconds

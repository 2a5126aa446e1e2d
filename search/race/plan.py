"""How much a search does: the rungs of a race and the verdict, from a task's defaults or to fit a time budget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoranger.components.core.errors import ConfigError

LISTED = 256
"""Largest number of subsets that the standard plan trains all of: those of Ranger21."""

EXPLORED = 64
"""Most subsets of a plan for a space of which a sampler chooses: proposals take time, and more seeds are worth more."""

PROTECTED = 5
"""Arms that stay in every round whatever their rank: the baselines (see `baselines`)."""

ENTRANTS = 6
"""Arms that the first round has because of the baselines, besides those of the space."""

REFINED = 32
"""Fewest subsets of a plan in which the leaders' numbers are refined: before that, more subsets are worth more."""

SURVIVORS = 1 / 3
"""Share of the subsets that goes on after the first round, unless a task says otherwise."""


@dataclass(frozen=True)
class Rung:
    """One round: every arm that is left, trained from scratch for `steps` with `seeds` new seeds.

    Args:
        steps: length of each training; schedules are scaled to it.
        seeds: trainings of each candidate.
        keep: arms that go on to the next round.
        lrs: learning rates of each arm to begin with: those nearest to its best one of the round before.
    """

    steps: int
    seeds: int
    keep: int
    lrs: int


@dataclass(frozen=True)
class Refinement:
    """What follows the last round: variants of its leaders, with other numbers (see `refine`).

    Args:
        leaders: arms that get variants, at most.
        draws: variants of each.
        seeds: new seeds, on which leaders and variants are trained.
        keep: variants that go on, with the leaders.
        more: further seeds for those.
    """

    leaders: int
    draws: int
    seeds: int
    keep: int
    more: int

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Candidates and seeds, first of all variants and then of those that go on."""
        return [(self.leaders * (1 + self.draws), self.seeds), (self.leaders + self.keep, self.more)]

    @property
    def trainings(self) -> int:
        """The number of trainings, each as long as those of the verdict."""
        return sum(candidates * seeds for candidates, seeds in self.parts)

    def of(self, leaders: int) -> Refinement:
        """The same for fewer leaders, of whose variants a smaller number goes on in proportion."""
        return replace(self, leaders=leaders, keep=max(1, self.keep * leaders // self.leaders))


@dataclass(frozen=True)
class Plan:
    """The rounds of a race and its verdict.

    Args:
        arms: subsets that enter, at most.
        rungs: the rounds, in order. The last one keeps the finalists.
        verdict_seeds: fresh seeds for the verdict.
        steps: length of the trainings of the verdict.
        refine: what is tried of the leaders' numbers before the verdict; None for nothing.
    """

    arms: int
    rungs: tuple[Rung, ...]
    verdict_seeds: int
    steps: int
    refine: Refinement | None = None

    @property
    def finalists(self) -> int:
        """Candidates of the verdict, at most: what the last round keeps, a variant of each leader, the baselines."""
        return self._finalists(self.rungs[-1].keep)

    def _finalists(self, kept: int) -> int:
        """`finalists`, of so many that the race keeps."""
        return kept + (self.refine.leaders if self.refine else 0) + PROTECTED

    @property
    def shortest(self) -> Plan:
        """The plan without the rounds that can be left out, and without a refinement."""
        return replace(self, rungs=self.rungs[:1], refine=None)

    def sizes(self, arms: int, lrs: int, first: int = 0) -> list[int]:
        """Candidates of each round from `first` on, with `arms` entrants and a grid of `lrs` rates, not extended."""
        kept = [min(rung.keep, self.arms, arms) for rung in self.rungs[first:]]
        entrants = [min(self.arms, arms), *(min(kept[:i]) for i in range(1, len(kept)))]
        return [
            (entering + (PROTECTED if number else ENTRANTS)) * min(rung.lrs, lrs)
            for number, (entering, rung) in enumerate(zip(entrants, self.rungs[first:], strict=False), start=first)
        ]

    def cost(self, arms: int, lrs: int, first: int = 0, scoring: float = 0.0) -> int:
        """Candidate-steps from round `first` on, with `arms` entrants and a grid of `lrs` rates, not extended.

        Scoring a training once takes as long as `scoring` of its steps; the verdict scores two splits.
        """
        sizes = zip(self.sizes(arms, lrs, first), self.rungs[first:], strict=True)
        race = sum(candidates * rung.seeds * (rung.steps + scoring) for candidates, rung in sizes)
        kept = min([self.arms, arms, *(rung.keep for rung in self.rungs[first:])])
        refining = self.refine.trainings * (self.steps + scoring) if self.refine else 0.0
        return round(race + refining + self._finalists(kept) * self.verdict_seeds * (self.steps + 2 * scoring))


def make_plan(
    steps: int, *, arms: int = LISTED, effort: int = 1, survivors: float = SURVIVORS, verdict_seeds: int | None = None
) -> Plan:
    """The plan for proxy runs of `steps`, `arms` entrants and `effort` times the standard number of seeds.

    The first round is half as long as the real one; it is no shorter because ranks of subsets at a third of the length
    agree poorly with those at full length (rank correlation 0.59 on digits). The share of `survivors` goes on.
    """
    kept = max(4, round(arms * survivors))
    half = max(1, steps // 2)
    refinement = Refinement(leaders=4, draws=16 * min(effort, 4), seeds=2 * effort, keep=8, more=4 * effort)
    return Plan(
        arms=arms,
        rungs=(
            Rung(steps=half, seeds=effort, keep=kept, lrs=99),
            Rung(steps=steps, seeds=2 * effort, keep=max(4, kept // 4), lrs=3),
            Rung(steps=steps, seeds=6 * effort, keep=4, lrs=2),
        ),
        verdict_seeds=verdict_seeds or 32 * effort,
        steps=steps,
        refine=refinement if arms >= REFINED else None,
    )


def plan_for(
    steps: int, arms: int, lrs: int, affordable: float, survivors: float = SURVIVORS, scoring: float = 0.0
) -> Plan | None:
    """The largest plan of a fixed ladder that costs at most `affordable` candidate-steps; None if none does.

    With little time the race takes fewer entrants and the verdict fewer seeds, never shorter runs: a short proxy
    selects another optimizer. With much time there are more seeds. The ladder is coarse, so that a repetition
    on the same machine finds the same plan in spite of timing noise.
    """
    return fitting(ladder(steps, survivors), arms, lrs, affordable, scoring)


def fitting(plans: Sequence[Plan], arms: int, lrs: int, affordable: float, scoring: float = 0.0) -> Plan | None:
    """The last of some plans, the cheapest first, that costs at most `affordable`; None where none does."""
    found = [plan for plan in plans if plan.cost(arms, lrs, scoring=scoring) <= affordable]
    return found[-1] if found else None


def ladder(steps: int, survivors: float = SURVIVORS, most: int = LISTED) -> list[Plan]:
    """The plans for proxy runs of `steps`, the cheapest first, with `most` entrants."""
    fewer = [(8, 1, 8), (8, 1, 16)]
    fuller = [(entrants, 1, None) for entrants in (8, 16, 32, 64, 128, LISTED) if entrants <= most]
    longer = [(most, effort, None) for effort in (2, 4, 8, 16)]
    return [
        make_plan(steps, arms=entrants, effort=effort, survivors=survivors, verdict_seeds=seeds)
        for entrants, effort, seeds in (*fewer, *fuller, *longer)
    ]


def parse_budget(text: str, name: str = "budget") -> float:
    """Seconds in a duration such as `90`, `90s`, `10m` or `1.5h`; raises ConfigError, by `name`, for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"{name} is '{text}', but must be a duration such as 90s, 10m or 1.5h.")
    return seconds

"""After the race: the numbers of its leaders, which all candidates had at their defaults so far, are refined.

Leaders and variants of them are trained on a few new seeds, and then the leaders and the best variants on further ones.
The seeds are new, since on those of the race a leader was lucky. A variant that is better than its leader by more than
noise becomes a finalist beside it. The best of many variants is partly lucky, too; the verdict's fresh seeds tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from autoranger.components.core.config import Config
from autoranger.search.arrays import Values
from autoranger.search.clock import OutOfTime
from autoranger.search.race.baselines import DEFAULT
from autoranger.search.race.plan import Plan, Refinement
from autoranger.search.race.race import Race, Standings, best_lr, best_value, value
from autoranger.search.ranges import variant

ERRORS = 1.0
"""Standard errors by which a variant must be better than its leader."""


@dataclass(frozen=True)
class Variant:
    """A variant of a leader, as an arm with a learning rate. A leader is one of itself."""

    arm: Config
    lr: float
    leader: Config


def refine(race: Race, finalists: Standings, plan: Plan, seeds: Callable[[int], list[int]]) -> Standings:
    """The finalists, and variants of those that lead; only the former if there is no time.

    With a budget that leaves time it goes on, from the best variant of each leader so far. Where there is no time for
    all leaders, half of them get variants, the best ones, or half of those.

    Args:
        race: trains.
        finalists: with their scores in the last round, best first. Baselines stay as they are; one that leads gets
            variants besides, full Ranger21 only if it is in the space.
        plan: of the race; it must have a refinement.
        seeds: gives that many seeds that have not been used before.
    """
    how = plan.refine
    assert how is not None
    ahead = [
        arm
        for arm in finalists
        if np.isfinite(best_value(finalists[arm])) and (arm in race.record.space or arm not in race.families[DEFAULT])
    ]
    leaders = {arm: Variant(arm, best_lr(finalists[arm]), arm) for arm in ahead[: how.leaders]}
    rounds, noted = list[int](), race.record.refinements
    best, scores = dict(leaders), dict[Variant, Values]()
    with suppress(OutOfTime):
        while leading := affordable(race, plan, how, len(leaders), rounds, noted):
            among = list(best.items())[:leading]
            found = trained(race, {one.arm: one.lr for _, one in among}, plan, how.of(leading), seeds)
            rounds.append(leading)
            for leader, present in among:
                if (better := improved(Variant(present.arm, present.lr, present.arm), found)) is not None:
                    best[leader], scores[better] = better, found[better]
    race.record.note(refinements=rounds)
    if rounds:
        race.refinement = how.of(rounds[0])
    else:
        race.clock.unrefined()
    changed = [one for leader, one in best.items() if one != leaders[leader]]
    return finalists | {one.arm: {one.lr: scores[one]} for one in changed}


def affordable(
    race: Race, plan: Plan, how: Refinement, most: int, rounds: Sequence[int], noted: Sequence[int] | None
) -> int:
    """How many leaders get variants next: all, half of them, and so on, until there is time; 0 if there is none.

    A resumed search does what the one did that it goes on with.
    """
    if noted is not None:
        return noted[len(rounds)] if len(rounds) < len(noted) else 0
    while most and not race.clock.refines(len(rounds), how.of(most).trainings * plan.steps, plan):
        most //= 2
    return most


def improved(present: Variant, found: Mapping[Variant, Values]) -> Variant | None:
    """The best variant of one that is better than it by more than noise; None if there is none."""
    for one in sorted(found, key=lambda one: -value(found[one])):
        gains = found[one] - found[present]
        if one.leader == present.arm and gains.mean() > ERRORS * gains.std(ddof=1) / len(gains) ** 0.5:
            return one
    return None


def trained(
    race: Race, leaders: Mapping[Config, float], plan: Plan, how: Refinement, seeds: Callable[[int], list[int]]
) -> dict[Variant, Values]:
    """The metric of leaders and their best variants on all seeds of a refinement."""
    themselves, parts = [Variant(arm, lr, arm) for arm, lr in leaders.items()], list[Standings]()
    first = seeds(how.seeds)
    going = drawn(leaders, how.draws, plan.steps, first[0])
    work = replace(plan, refine=how).cost(plan.rungs[-1].keep, 1, first=len(plan.rungs))
    race.clock.refinement(len(going), len(leaders), steps=plan.steps, seeds=how.seeds, work=work)
    for part in (first, seeds(how.more)):
        parts.append(Standings())
        race.train([(one.arm, one.lr) for one in (*themselves, *going)], plan.steps, part, parts[-1])
        going = sorted(going, key=lambda one: -best_value(parts[0][one.arm]))[: how.keep]
    return {one: np.concatenate([scores[one.arm][one.lr] for scores in parts]) for one in (*themselves, *going)}


def drawn(leaders: Mapping[Config, float], count: int, steps: int, seed: int) -> list[Variant]:
    """`count` variants of each leader, by arm and learning rate; fewer if some are the same."""
    rng, found = np.random.default_rng(seed), dict[Config, Variant]()
    for leader, lr in leaders.items():
        for _ in range(count):
            config = variant(replace(leader, lr=lr), steps, rng)
            one = Variant(replace(config, lr=leader.lr), config.lr, leader)
            if one.arm not in leaders:
                found[one.arm] = one
    return list(found.values())

"""How it stands with a search, read from its study while it runs: rounds, leaders, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from optuna.study import Study

from autoranger.components.core.errors import ConfigError
from autoranger.search.attribution.sample import candidate, results
from autoranger.search.race.plan import Plan
from autoranger.search.race.rounds import Round
from autoranger.search.serialization import from_data, to_json
from autoranger.search.space import in_words, lr_grid
from autoranger.search.storage.sittings import Sitting, State, sittings, state
from autoranger.search.study import SEEDS
from autoranger.search.verdict.outcome import Finalist, Settings

LEADERS = 5
"""Number of subsets that lead."""


@dataclass(frozen=True)
class Stage:
    """A round of the race, or the verdict.

    Args:
        name: "round 1 of 3", "verdict".
        steps, seeds: of its trainings.
        done, planned: candidates. A grid that is extended has more than were planned.
    """

    name: str
    steps: int
    seeds: int
    done: int
    planned: int

    @property
    def work(self) -> tuple[int, int]:
        """Candidate-steps that are done, and those planned."""
        each = self.steps * self.seeds
        return self.done * each, max(self.done, self.planned) * each


@dataclass(frozen=True)
class Leader:
    """A subset that leads the latest round, at its best learning rate there."""

    components: tuple[str, ...]
    lr: float
    value: float


@dataclass(frozen=True)
class Standing:
    """How it stands with a search.

    Args:
        study: its name.
        state: whether it runs, and how it ended.
        settings: of the search.
        sittings: when and where it ran.
        stages: rounds and verdict; empty while it prepares.
        leaders: of the latest round, best first; of a finished search the finalists, in the verdict's order.
        seconds: since the present sitting began, or of all sittings of a search that does not run.
        left: seconds, as far as can be told.
    """

    study: str
    state: State
    settings: Settings
    sittings: tuple[Sitting, ...]
    stages: Sequence[Stage]
    leaders: Sequence[Leader]
    seconds: float | None
    left: float | None

    @property
    def stage(self) -> Stage | None:
        """The latest round that has results, or the verdict."""
        return next((stage for stage in reversed(self.stages) if stage.done), None)

    @property
    def share(self) -> float:
        """Share of the candidate-steps that are done."""
        if self.state is State.FINISHED:
            return 1.0
        done, planned = (sum(stage.work[part] for stage in self.stages) for part in (0, 1))
        return done / planned if planned else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found: dict[str, Any] = to_json(asdict(self) | {"share": self.share})
        return found


def read_standing(study: Study) -> Standing:
    """Reads how it stands with a search.

    Raises:
        ConfigError: if the study's attributes are not what a search of this version writes.
    """
    facts = study.user_attrs
    settings, parts = from_data(Settings, facts.get("settings"), "study.settings"), sittings(study)
    plan = None if facts.get("plan") is None else from_data(Plan, facts["plan"], "study.plan")
    now, trained = state(study), rounds_of(study, settings.seed)
    race, verdict, over = by_candidate(trained), verdict_of(facts), now is State.FINISHED
    done = [len(values) for values in trained.values()]
    stages = [] if plan is None else list(planned(plan, settings, done, verdict, over=over))
    seconds = elapsed(parts, running=now is State.RUNNING)
    leading = (finalists(facts.get("finalists", ())) if over else []) or leaders(race, settings.components)
    standing = Standing(study.study_name, now, settings, parts, stages, leading, seconds, None)
    if now is not State.RUNNING or not seconds or not 0 < standing.share < 1 or len(parts) > 1:
        return standing  # of a sitting that goes on with another one's work the speed is not known
    left = seconds * (1 / standing.share - 1)
    if settings.budget is not None:
        left = max(0.0, min(left, settings.budget - seconds))
    return replace(standing, left=left)


Race = dict[Round, dict[tuple[frozenset[str], float], float]]
"""Of every round, the mean metric of each candidate; of those that differ in nothing but numbers, the best one's."""


def race_of(study: Study, seed: int) -> Race:
    """The rounds of the race and its refinement, in order, without what was trained before it."""
    return by_candidate(rounds_of(study, seed))


Results = list[tuple[tuple[frozenset[str], float], float]]
"""Subset, learning rate and mean metric of trials."""


def rounds_of(study: Study, seed: int) -> dict[Round, Results]:
    """The results of each round of the race and its refinement, in order."""
    found = dict[Round, Results]()
    for trial in study.get_trials(deepcopy=False):
        for round_, values in results(trial):
            if round_.first_seed < seed * SEEDS + SEEDS // 2:
                found.setdefault(round_, []).append((candidate(trial), float(np.mean(values))))
    return dict(sorted(found.items(), key=lambda entry: entry[0].first_seed))


def by_candidate(rounds: Mapping[Round, Results]) -> Race:
    """The rounds with the best result for each subset and learning rate."""
    return {
        round_: dict(sorted(found, key=lambda entry: np.nan_to_num(entry[1], nan=-np.inf)))
        for round_, found in rounds.items()
    }


def verdict_of(facts: Mapping[str, Any]) -> tuple[Round, int] | None:
    """The verdict's round, and how many finalists have been through it."""
    noted = facts.get("verdict")
    if not isinstance(noted, Mapping) or (round_ := Round.parse(str(noted.get("round")))) is None:
        return None
    return round_, len(noted.get("results", ()))


def planned(
    plan: Plan, settings: Settings, done: Sequence[int], verdict: tuple[Round, int] | None, *, over: bool
) -> Sequence[Stage]:
    """The stages of a search's plan, with the number of candidates that have been through each."""
    arms, rates = 2 ** len(settings.components), len(lr_grid(*settings.lr_range))
    rungs = [(r.steps, r.seeds, size) for r, size in zip(plan.rungs, plan.sizes(arms, rates), strict=True)]
    names = [f"round {number} of {len(rungs)}" for number in range(1, len(rungs) + 1)]
    if plan.refine is not None:
        rungs += [(plan.steps, seeds, size) for size, seeds in plan.refine.parts]
        names += ["refinement", "refinement, further seeds"]
    counts = [*done, *[0] * len(rungs)]
    rounds = [
        Stage(name, steps, seeds, so_far, size)
        for name, (steps, seeds, size), so_far in zip(names, rungs, counts, strict=False)
    ]
    seeds, so_far = (verdict[0].seeds, verdict[1]) if verdict else (plan.verdict_seeds, 0)
    stages = [*rounds, Stage("verdict", plan.steps, seeds, so_far, plan.finalists)]
    latest = len(stages) if over else max((place for place, stage in enumerate(stages) if stage.done), default=0)
    return [replace(stage, planned=stage.done) if place < latest else stage for place, stage in enumerate(stages)]


def leaders(race: Race, order: Sequence[str]) -> list[Leader]:
    """The best subsets of the latest round, each at its best learning rate.

    Args:
        race: the rounds.
        order: of the components; those of baselines that are not in it follow.
    """
    latest = list(race.values())[-1] if race else {}
    ranked = sorted((c for c in latest if np.isfinite(latest[c])), key=lambda c: -latest[c])
    best: dict[frozenset[str], Leader] = {}
    for subset, lr in ranked:
        names = [*(name for name in order if name in subset), *sorted(subset.difference(order))]
        best.setdefault(subset, Leader(tuple(names), lr, latest[subset, lr]))
    return list(best.values())[:LEADERS]


def finalists(noted: Any) -> list[Leader]:
    """The finalists of a finished search, from its study, in the verdict's order; none without a comparison."""
    found = [from_data(Finalist, entry, "study.finalists") for entry in noted]
    return [
        Leader(finalist.components, finalist.lr, finalist.valid) for finalist in found if np.isfinite(finalist.valid)
    ]


def elapsed(parts: Sequence[Sitting], *, running: bool) -> float | None:
    """Seconds of the present sitting, or of all of them; None if that is not known."""
    if running and parts:
        return (datetime.now().astimezone() - datetime.fromisoformat(parts[-1].began)).total_seconds()
    known = [part.seconds for part in parts]
    return sum(s for s in known if s is not None) if known and None not in known else None


def found_by(study: Study) -> str:
    """What a finished search exports, in a few words; empty before."""
    outcome = study.user_attrs.get("outcome")
    return f"{in_words(outcome['components'])}, lr {outcome['lr']:g}" if outcome else ""


def readable(study: Study) -> Standing | None:
    """How it stands with a search; None if the study is of another version."""
    try:
        return read_standing(study)
    except ConfigError:
        return None

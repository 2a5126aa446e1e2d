"""The sample for an attribution: the round of a search that most of its candidates have been through."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from autoranger.components.core.errors import ConfigError
from autoranger.search.arrays import Values
from autoranger.search.attribution.seeds import between_seeds
from autoranger.search.race.rounds import Round

LR = "lr"
"""The parameter that is not a switch."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The results of one round of a search.

    Args:
        round: length and seeds of the trainings.
        components: ids, in the order of the space.
        subsets: the components that each of N candidates has on.
        lrs: learning rates `[N]`.
        values: validation metric `[N]`, the mean over seeds; NaN if any run diverged.
        between: variance of components' effects between seeds (see `seeds.between_seeds`); None if unknown.
    """

    round: Round
    components: tuple[str, ...]
    subsets: Sequence[frozenset[str]]
    lrs: Values
    values: Values
    between: float | None = None


def rounds(trials: Sequence[FrozenTrial]) -> list[dict[str, int]]:
    """The rounds of a search, from its trials, in the order of their seeds: `{steps, seeds, candidates, arms}`."""
    members: dict[Round, dict[frozenset[tuple[str, Any]], frozenset[str]]] = {}
    for trial in trials:
        for round_, _ in results(trial):
            members.setdefault(round_, {})[frozenset(trial.params.items())] = candidate(trial)[0]
    return [
        {
            "steps": round_.steps,
            "seeds": round_.seeds,
            "candidates": len(members[round_]),
            "arms": len(set(members[round_].values())),
        }
        for round_ in sorted(members, key=lambda r: (r.first_seed, r.steps))
    ]


def largest_sample(study: Study) -> Sample:
    """The round with the most candidates; of equals the one with more training.

    A candidate that is recorded twice counts once. One that differs in more than switches and learning rate, as
    baselines do, does not count.

    Raises:
        ConfigError: if the study has no trial of a search.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if any(results(trial))]
    fewest = min((len(trial.params) for trial in trials), default=0)
    trials = [trial for trial in trials if len(trial.params) == fewest]
    counts = Counter(round_ for trial in trials for round_, _ in results(trial))
    if not counts:
        raise ConfigError(f"study '{study.study_name}' has no trial of a search yet.")
    shared = max(counts, key=lambda r: (counts[r], r.work))
    by_round: dict[Round, dict[tuple[frozenset[str], float], list[float]]] = {round_: {} for round_ in counts}
    for trial in trials:
        for round_, values in results(trial):
            by_round[round_][candidate(trial)] = values
    every = {name for t in trials for name in t.params if name != LR}
    ordered = [*study.user_attrs.get("settings", {}).get("components", ()), *sorted(every)]
    components = tuple(name for name in dict.fromkeys(ordered) if name in every)
    found = by_round[shared]
    repeated = [([s for s, _ in r], np.array(list(r.values()))) for q, r in by_round.items() if q.seeds > 1]
    return Sample(
        round=shared,
        components=components,
        subsets=[subset for subset, _ in found],
        lrs=np.array([lr for _, lr in found]),
        values=np.array([np.mean(values) for values in found.values()], dtype=np.float64),
        between=between_seeds(components, repeated),
    )


def results(trial: FrozenTrial) -> Iterator[tuple[Round, list[float]]]:
    """The rounds of a trial with the metric of every seed, NaN if it diverged; none if it is not a search's trial."""
    noted = trial.user_attrs.get("rounds")
    if not isinstance(noted, Mapping) or LR not in trial.params:
        return
    for name, values in noted.items():
        round_ = Round.parse(str(name))
        if round_ and values:
            yield round_, [math.nan if v is None else float(v) for v in values]


def candidate(trial: FrozenTrial) -> tuple[frozenset[str], float]:
    """The components that a trial has on, and its learning rate."""
    return frozenset(name for name, on in trial.params.items() if on is True), float(trial.params[LR])

"""Learning curves of the finalists: the validation metric on the way through the verdict's trainings.

A population scores them as it goes. Trainings of one's own have the curves of what they report.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autoranger.components.core.config import Config
from autoranger.search.arrays import Values
from autoranger.search.serialization import from_data

CURVES = "curves"
"""The attribute of a study with its finalists' curves."""


@dataclass(frozen=True)
class Curve:
    """A finalist's learning curve.

    Args:
        config: its fields.
        steps: at which it was looked at.
        mean, deviation: of the metric over those seeds that have not diverged, at each look; NaN if there is none.
        seeds: how many those are.
    """

    config: Mapping[str, Any]
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, config: Config, steps: int, values: Values) -> Curve:
        """The curve in values `[S, P]` at P evenly spaced looks, the last one at the end of `steps`."""
        points = values.shape[1]
        return cls.at(config.to_dict(), [round(steps * (i + 1) / points) for i in range(points)], values)

    @classmethod
    def at(cls, config: Mapping[str, Any], steps: Sequence[int], values: Values) -> Curve:
        """The curve in values `[S, P]` at P steps; those that are not finite have no part in it."""
        looks = [column[np.isfinite(column)] for column in values.T]
        return cls(
            config,
            tuple(steps),
            tuple(float(v.mean()) if len(v) else math.nan for v in looks),
            tuple(float(v.std(ddof=1)) if len(v) > 1 else math.nan for v in looks),
            tuple(map(len, looks)),
        )


def known_curves(study: Study) -> list[Curve]:
    """The curves that a search has written."""
    return [from_data(Curve, curve, CURVES) for curve in study.user_attrs.get(CURVES) or ()]


def reported_curves(runs: Study, seeds: range) -> list[Curve]:
    """The curves of what full trainings of one's own reported, for each config at the steps that all of them have.

    Args:
        runs: the study of the trainings.
        seeds: of the trainings that are meant. Those of them that failed have no part in a curve.
    """
    trained = defaultdict[str, list[FrozenTrial]](list)
    for trial in runs.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        noted = trial.user_attrs
        if noted.get("length") == 1.0 and noted["seed"] in seeds:
            trained[json.dumps(noted["config"], sort_keys=True)].append(trial)
    found = []
    for config, trials in trained.items():
        reports = [trial.intermediate_values for trial in trials]
        if steps := sorted(set.intersection(*map(set, reports))):
            values = np.array([[report[step] for step in steps] for report in reports])
            found.append(Curve.at(json.loads(config), steps, values))
    return found


def as_facts(curves: Sequence[Curve]) -> dict[str, Any]:
    """Curves as attributes of a study."""
    return {CURVES: [asdict(curve) for curve in curves]}

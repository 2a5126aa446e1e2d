"""Learning curves of the finalists: the validation metric on the way through the verdict's trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from optuna.study import Study

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
        looks = [column[np.isfinite(column)] for column in values.T]
        return cls(
            config.to_dict(),
            tuple(round(steps * (i + 1) / len(looks)) for i in range(len(looks))),
            tuple(float(v.mean()) if len(v) else math.nan for v in looks),
            tuple(float(v.std(ddof=1)) if len(v) > 1 else math.nan for v in looks),
            tuple(map(len, looks)),
        )


def known_curves(study: Study) -> list[Curve]:
    """The curves that a search has written."""
    return [from_data(Curve, curve, CURVES) for curve in study.user_attrs.get(CURVES) or ()]


def as_facts(curves: Sequence[Curve]) -> dict[str, Any]:
    """Curves as attributes of a study."""
    return {CURVES: [asdict(curve) for curve in curves]}

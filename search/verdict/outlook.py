"""Trains what a forecast needs: what is exported and the baselines, at several lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError, SearchError
from autoranger.search.arrays import Values
from autoranger.search.clock import OutOfTime
from autoranger.search.race.baselines import RANDOM
from autoranger.search.race.compete import Finals
from autoranger.search.race.race import Race
from autoranger.search.verdict.forecast import forecast
from autoranger.search.verdict.outcome import Forecast

SHARES = (0.25, 0.5, 1.0)
"""Lengths of the trainings of a forecast, as shares of the verdict's."""

MOST_SEEDS = 16
"""Most seeds of a forecast."""


def forecast_of(
    race: Race,
    finals: Finals,
    best: Config,
    proxy: Mapping[str, Any],
    steps: int,
    fresh: Callable[[int], list[int]],
) -> Forecast | None:
    """The forecast for what is exported; None if there is no time for it, or nothing to compare.

    It has seeds of its own: on those of the verdict the exported config was chosen as the best one.

    Args:
        race: has the clock and the trainer.
        finals: with the baselines. The best of random subsets is left out, since nobody would use it.
        best: what is exported.
        proxy: what its trainings are, which the laws scale rates from.
        steps: their length.
        fresh: gives that many seeds that have not been used before.
    """
    others = {role: place for role, place in finals.roles.items() if role != RANDOM and finals.configs[place] != best}
    rows = [finals.configs.index(best), *dict.fromkeys(others.values())]
    configs = [replace(finals.configs[row], proxy=proxy) for row in rows]
    lengths = [round(steps * share) for share in SHARES]
    count = race.clock.forecast_seeds(len(rows), sum(lengths), MOST_SEEDS)
    if not others or not count or not lengths[0]:
        return None
    try:
        values = train(race, configs, fresh(count), lengths)
    except (OutOfTime, ConfigError, SearchError):  # the verdict stands without it
        return None
    return forecast(steps, values, {role: rows.index(place) for role, place in others.items()})


def train(race: Race, configs: Sequence[Config], seeds: Sequence[int], lengths: Sequence[int]) -> dict[int, Values]:
    """The validation metric `[F, S]` of configs by length; the laws scale the rates of those with a `proxy`."""
    clock, work = race.clock, len(configs) * len(seeds) * sum(lengths)
    clock.forecast(len(configs), len(seeds), work=work)
    clock.training(work)
    with clock.until(clock.end):
        return {
            length: race.population.train(configs, seeds, length, progress=clock.advance)["valid"] for length in lengths
        }

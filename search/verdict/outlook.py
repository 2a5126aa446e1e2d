"""Trains what a forecast needs: what is exported and the baselines, at shorter lengths than the verdict's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoranger.components.core.config import Config
from autoranger.search.arrays import Values
from autoranger.search.clock import OutOfTime
from autoranger.search.race.compete import Finals
from autoranger.search.race.race import Race
from autoranger.search.verdict.forecast import forecast
from autoranger.search.verdict.outcome import Forecast

SHORTER = (0.25, 0.5)
"""Shares of the verdict's length at which finalists train for a forecast."""

MOST_SEEDS = 32
"""Most seeds of a forecast."""


def forecast_of(race: Race, finals: Finals, best: Config, proxy: Mapping[str, Any], steps: int) -> Forecast | None:
    """The forecast for what is exported; None if there is no time for it, or if nothing can be compared.

    Args:
        race: has the clock and the trainer.
        finals: with the baselines.
        best: what is exported.
        proxy: what its trainings are, which the laws scale rates from.
        steps: their length.
    """
    own = finals.configs.index(best)
    rows = list(dict.fromkeys([own, *finals.roles.values()]))
    baselines = {role: rows.index(place) for role, place in finals.roles.items() if place != own}
    found = shorter(race, [replace(finals.configs[row], proxy=proxy) for row in rows], finals.seeds, steps)
    if not found or not baselines:
        return None
    count = next(iter(found.values())).shape[1]
    return forecast(steps, found | {steps: finals.scores["valid"][rows, :count]}, baselines)


def shorter(race: Race, configs: Sequence[Config], seeds: Sequence[int], steps: int) -> dict[int, Values]:
    """The validation metric `[F, S]` of some finalists at shorter lengths, in order; none if there is no time for it.

    Args:
        race: has the clock and the trainer.
        configs: of the finalists, with their `proxy`, so that the laws scale their rates.
        seeds: those of the verdict, of which the first ones are used.
        steps: the length of the verdict's trainings.
    """
    clock, lengths = race.clock, [round(steps * share) for share in SHORTER]
    count = clock.forecast_seeds(len(configs), sum(lengths), min(len(seeds), MOST_SEEDS))
    if count == 0 or lengths[0] < 1:
        return {}
    work, found = len(configs) * count * sum(lengths), dict[int, Values]()
    clock.forecast(len(configs), count, work=work)
    clock.training(work)
    try:
        with clock.until(clock.end):
            for length in lengths:
                scores = race.population.train(configs, list(seeds[:count]), length, progress=clock.advance)
                found[length] = scores["valid"]
    except OutOfTime:
        return {}
    return found

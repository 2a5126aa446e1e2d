"""How hard may a race drop subsets after a shorter run, and does the verdict keep its level? Answered on the tables.

usage: python studies/09_race_and_verdict/run.py

Ranks: every subset at its best learning rate, Spearman's correlation between lengths of training, and at full length
between halves of the seeds (what noise alone leaves). Cut: the share of subsets that a first round with one seed has to
keep, so that, whichever the seed, one is among them whose true mean is within a given distance of the best one's.
Verdict: four finalists against full Ranger21 on 32 fresh seeds, drawn from the table's residuals (paired by seed) about
equal means: how often is a winner named? Then with one finalist truly better.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from autoranger.components.presets import RANGER21
from autoranger.search.attribution.table import Table
from autoranger.search.verdict.statistics import LEVEL, against, winner

HERE = Path(__file__).parent
REPEATS = 10_000
WITHIN = (0.001, 0.002)


def at_best(table: Table, seeds: list[int]) -> np.ndarray:
    """Mean of each subset over some seeds at its best learning rate of those `[256]`."""
    return np.nan_to_num(table.final, nan=np.nanmin(table.final))[:, :, seeds].mean(axis=-1).max(axis=-1)


def ranks(table: Table) -> dict[str, float]:
    count = len(table.seeds)
    parts = {length: table.at(length=length) for length in table.lengths}
    every = list(range(count))
    found = {
        f"{a} and {b} steps": stats.spearmanr(at_best(parts[a], every), at_best(parts[b], every)).statistic
        for a, b in combinations(table.lengths, 2)
    }
    halves = [list(half) for half in combinations(every, count // 2)]
    for length, part in parts.items():
        rests = [[s for s in every if s not in half][: count // 2] for half in halves]
        pairs = zip(halves, rests, strict=True)
        reliability = [stats.spearmanr(at_best(part, a), at_best(part, b)).statistic for a, b in pairs]
        found[f"{length} steps, {count // 2} seeds and {count // 2} others"] = float(np.mean(reliability))
    return {name: round(float(value), 2) for name, value in found.items()}


def cuts(table: Table) -> dict[str, float]:
    """Share of the subsets to keep after a round of one seed, by length and distance."""
    truth, found = table.means.max(axis=-1), {}
    for length in table.lengths:
        places: dict[float, list[int]] = {within: [] for within in WITHIN}
        for seed in range(len(table.seeds)):
            order = np.argsort(-at_best(table.at(length=length), [seed]), kind="stable")
            for within in WITHIN:
                places[within].append(int(np.flatnonzero(truth.max() - truth[order] <= within)[0]) + 1)
        for within, firsts in places.items():
            found[f"{length} steps, within {100 * within:g} points"] = round(max(firsts) / 256, 2)
    return found


def verdicts(table: Table) -> dict[str, Any]:
    """How often a winner is named: where nothing is better, and with one finalist better by so much."""
    rng, best = np.random.default_rng(0), table.means.argmax(axis=-1)
    values = np.stack([table.final[n, best[n]] for n in range(len(best))])
    kept = np.isfinite(values).all(axis=1)
    residuals = values - values.mean(axis=1, keepdims=True)
    residuals *= (values.shape[1] / (values.shape[1] - 1)) ** 0.5
    leaders = [n for n in np.argsort(-values.mean(axis=1)) if kept[n]][:40]
    default = table.number(RANGER21)

    def named(effect: float) -> float:
        count = 0
        for _ in range(REPEATS):
            finalists = rng.choice([n for n in leaders if n != default], 4, replace=False)
            seeds = rng.integers(values.shape[1], size=32)
            shown = residuals[finalists][:, seeds]
            shown[0] += effect
            count += winner(against(shown, residuals[default][seeds], len(shown))) is not None
        return round(count / REPEATS, 4)

    power = {f"{100 * effect:g} points": named(effect) for effect in (0.001, 0.002, 0.003, 0.005)}
    return {"level": LEVEL, "false positives": named(0.0), "power": power, "repeats": REPEATS}


def main() -> None:
    record = {}
    for path in sorted((HERE.parent / "07_tables").glob("*.npz")):
        table = Table.load(path)
        record[table.task] = {"ranks": ranks(table), "keep": cuts(table), "verdict": verdicts(table)}
        print(table.task, json.dumps(record[table.task], indent=1))
    (HERE / "record.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

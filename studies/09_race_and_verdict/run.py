"""How hard may a race drop subsets after a shorter run, and does the verdict keep its level? Answered on the tables.

usage: python studies/09_race_and_verdict/run.py

Ranks: every subset at its best learning rate, Spearman's correlation between lengths of training, and at full length
between halves of the seeds (what noise alone leaves). Cut: the share of subsets that a first round with one seed has to
keep, so that, whichever the seed, one is among them whose true mean is within a given distance of the best one's.
Verdict: four finalists and five baselines, one of them full Ranger21, on 32 fresh seeds, drawn from the table's
residuals (paired by seed) about equal means: how often is a winner named, and how often one that beats all baselines,
each wrongly? Likewise where all but one of the baselines are worse by 5 points, and with one finalist truly better.
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
from autoranger.search.verdict.statistics import LEVEL, against, against_best, winner

HERE = Path(__file__).parent
REPEATS, POWER_REPEATS = 1000, 200
FINALISTS, BASELINES = 4, 5
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

    def named(repeats: int, effect: float, gap: float = 0.0) -> dict[str, float]:
        """Shares of verdicts that name a winner, and one that beats every baseline.

        Args:
            repeats: number of verdicts.
            effect: by which the first finalist is better than full Ranger21.
            gap: by which all baselines but the last one are worse than that.
        """
        won = best = 0
        for _ in range(repeats):
            others = rng.choice([n for n in leaders if n != default], FINALISTS + BASELINES - 1, replace=False)
            seeds = rng.integers(values.shape[1], size=32)
            shown = residuals[[default, *others]][:, seeds]
            shown[: BASELINES - 1] -= gap
            shown[BASELINES] += effect
            rivals = len(shown) - 1
            won += winner(against(shown, shown[0], rivals)) is not None
            to_best = against_best(shown, range(BASELINES), rivals)
            best += any(difference.low > 0 for difference, _ in to_best[BASELINES:])
        return {"a winner": round(won / repeats, 4), "one that beats every baseline": round(best / repeats, 4)}

    power = {f"{100 * effect:g} points": named(POWER_REPEATS, effect) for effect in (0.001, 0.002, 0.003, 0.005)}
    return {
        "level": LEVEL,
        "nothing better": named(REPEATS, 0.0),
        "nothing better than one baseline, the others worse": named(REPEATS, 0.0, gap=0.05),
        "power": power,
        "repeats": REPEATS,
        "repeats of power": POWER_REPEATS,
    }


def main() -> None:
    file = HERE / "record.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for path in sorted((HERE.parent / "07_tables").glob("*.npz")):
        table = Table.load(path)
        record[table.task] = {"ranks": ranks(table), "keep": cuts(table), "verdict": verdicts(table)}
        file.write_text(json.dumps(record, indent=1) + "\n")
        print(table.task, json.dumps(record[table.task], indent=1), flush=True)


if __name__ == "__main__":
    main()

"""Does the verdict keep its level with the noise of real trainings? Full Ranger21 against itself, on other seeds.

usage: python studies/09_race_and_verdict/real.py [--tasks digits …] [--seeds 1000]

A table has residuals of five or eight seeds; here are a thousand trainings of one config, shared out anew in every
repetition: four finalists and the default get 32 of them each, so that nothing is better, and nothing is paired, which
is the harder case. Written to real.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats

from autoranger.components.core.config import Config
from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.tasks import find
from autoranger.search.verdict.statistics import LEVEL, against, winner

HERE = Path(__file__).parent
RATES = {"digits": (0.1, 300), "fashion": (0.03, 400), "shakespeare": (0.03, 400)}
"""Full Ranger21's best learning rate in the table, and the table's longest run."""

FINALISTS, VERDICT, REPEATS = 4, 32, 20_000


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(RATES))
    parser.add_argument("--seeds", type=int, default=1000)
    args = parser.parse_args()
    path = HERE / "real.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    for name in args.tasks:
        lr, steps = RATES[name]
        population, config = Population(find(name)("cpu", None)), Config.preset("ranger21", lr=lr)
        blocks = np.array_split(np.arange(args.seeds) + 10_000, max(1, args.seeds // 250))
        values = np.concatenate([population.train([config], [int(s) for s in b], steps)["valid"][0] for b in blocks])
        rng, named = np.random.default_rng(0), 0
        for _ in range(REPEATS):
            drawn = rng.choice(values, (FINALISTS + 1, VERDICT), replace=False)
            named += winner(against(drawn[1:], drawn[0], FINALISTS)) is not None
        record[name] = {
            "level": LEVEL,
            "false positives": named / REPEATS,
            "repeats": REPEATS,
            "seeds": args.seeds,
            "mean": round(float(values.mean()), 5),
            "deviation": round(float(values.std(ddof=1)), 5),
            "skewness": round(float(stats.skew(values)), 3),
        }
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(name, record[name], flush=True)


if __name__ == "__main__":
    main()

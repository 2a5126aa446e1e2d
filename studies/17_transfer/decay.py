"""What should weight decay do where a training gets longer? Four answers, for what studies/15_head_to_head found.

usage: python studies/17_transfer/decay.py [--seeds 6] [--problems table text …] --data-dir DIR

Each config that autoranger chose there trains at full length, on seeds that no search has seen, with the rate as it is
or as the law of length has it, r = T^-0.32 for T times the steps, and with weight decay
- "shorter": 1/(r·T) times as high, so that η·λ·T stays: weights are an average over the same share of the training;
- "same": as it is;
- "passes": 1/r times as high, so that η·λ stays: weights are an average over as many passes through the data.
Adds the scores on test data (higher is better) to decay.json, and prints the table of the README.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FOUND = HERE.parent / "15_head_to_head"
RECORD = HERE / "decay.json"
FIRST_SEED = 60_000_000

sys.path.insert(0, str(FOUND))

ANSWERS = {
    "plain": lambda rate, steps: (1.0, 1.0),
    "shorter": lambda rate, steps: (rate, 1 / (rate * steps)),
    "same": lambda rate, steps: (rate, 1.0),
    "passes": lambda rate, steps: (rate, 1 / rate),
}
"""Factors on rate and weight decay, of the factor of the law of length and the ratio of steps."""


def main() -> None:
    from contestants import AUTORANGER, one
    from problems import DATA, PROBLEMS

    from autoranger.components.core.laws import length

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--data-dir", help="folder of data files")
    asked = parser.parse_args()
    if asked.data_dir:
        os.environ[DATA] = asked.data_dir
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    warnings.simplefilter("ignore")
    found = json.loads((FOUND / "record.json").read_text())["problems"]
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name in asked.problems:
            if name not in found or name in record:
                continue
            longer, config = PROBLEMS[name].longer, found[name]["choices"][AUTORANGER]["choice"]["config"]
            jobs = []
            for answer in ANSWERS.values():
                lr, decay = answer(length(1.0, longer), longer)
                at_length = config | {"lr": config["lr"] * lr, "weight_decay": config["weight_decay"] * decay}
                choice = {"by": AUTORANGER, "config": {k: v for k, v in at_length.items() if k != "proxy"}}
                jobs += [(name, choice, FIRST_SEED + seed, float(longer)) for seed in range(asked.seeds)]
            scores = np.array([test for _, test in pool.map(one, jobs)]).reshape(len(ANSWERS), -1)
            record[name] = dict(zip(ANSWERS, scores.tolist(), strict=True))
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


def table(record: dict[str, dict[str, list[float]]]) -> str:
    """Means with standard errors, and differences from "plain" in standard errors of the difference."""
    lines = [f"| problem | {' | '.join(ANSWERS)} |", "|---" * (len(ANSWERS) + 1) + "|"]
    for name, scores in record.items():
        cells = []
        for answer in ANSWERS:
            x, d = np.array(scores[answer]), np.array(scores[answer]) - np.array(scores["plain"])
            beside = "" if answer == "plain" else f" ({d.mean():+.4f} ± {d.std(ddof=1) / len(d) ** 0.5:.4f})"
            cells.append(f"{x.mean():.4f}{beside}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

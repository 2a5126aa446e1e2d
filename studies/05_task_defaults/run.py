"""Which learning rates, and how many steps? AdamW and full Ranger21 over a wide grid of rates, at several lengths.

usage: python studies/05_task_defaults/run.py [--seeds 4] [--data-dir DIR] TASK [TASK …]

Trains the proxy of each task with the population trainer and adds what it finds to record.json, task by task. Every
length is a training of its own, its schedules scaled to it. Then it says for each length which rate was best, and how
far Ranger21 was ahead at either one's best, paired by seed.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoranger import Config
from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.space import lr_grid
from autoranger.search.tasks import find
from autoranger.search.verdict.statistics import paired_difference

RECORD = Path(__file__).parent / "record.json"
OPTIMIZERS = ("adamw", "ranger21")
RATES = lr_grid(1e-4, 1.0)
LENGTHS = {
    "cifar": (100, 200, 400, 800),
    "cifar_nf": (80, 160, 320),
    "diabetes": (50, 100, 200, 300, 1000),
    "digits": (100, 300, 1000, 3000),
    "fashion": (100, 200, 400, 1000, 3000),
    "shakespeare": (100, 300, 600, 1000, 3000),
}


def both(population: Population, rates: list[float], steps: int, seeds: list[int]) -> dict[str, Any]:
    """Scores of both optimizers at every rate, the best rates, and the difference there."""
    configs = [Config.preset(name, lr=lr) for name in OPTIMIZERS for lr in rates]
    scores = population.train(configs, seeds, steps)["valid"].reshape(len(OPTIMIZERS), len(rates), len(seeds))
    row: dict[str, Any] = {}
    best = []
    for name, by_rate in zip(OPTIMIZERS, scores, strict=True):
        means = np.where(np.isnan(by_rate).any(axis=1), -np.inf, by_rate.mean(axis=1))  # a rate must not diverge
        best.append(by_rate[means.argmax()])
        row[name] = {
            "best lr": rates[int(means.argmax())],
            "score": round(float(means.max()), 4),
            "by lr": {
                lr: {"mean": round(float(np.nanmean(s)), 4), "std": round(float(np.nanstd(s, ddof=1)), 4)}
                if (~np.isnan(s)).sum() > 1
                else None
                for lr, s in zip(rates, by_rate, strict=True)
            },
        }
    difference = paired_difference(best[1], best[0])
    row["ranger21 - adamw"] = [round(x, 4) for x in (difference.effect, difference.low, difference.high)]
    return row


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="+", choices=LENGTHS, metavar="TASK")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    for name in args.tasks:
        task = find(name)("cpu", args.data_dir)
        population, lengths = Population(task), {}
        for steps in LENGTHS[name]:
            row = lengths[steps] = both(population, RATES, steps, list(range(args.seeds)))
            best = {key: (row[key]["best lr"], row[key]["score"]) for key in OPTIMIZERS}
            print(name, steps, best, "ranger21 - adamw", row["ranger21 - adamw"], flush=True)
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {"tasks": {}}
        record |= {
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        }
        record["tasks"][name] = {
            "date": date.today().isoformat(),
            "metric": f"validation {task.metric_name}",
            "seeds": args.seeds,
            "batch size": task.batch_size,
            "lengths": lengths,
        }
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Does a search of today's components find more in three minutes than one of Ranger21's eight? See README.md.

usage: python studies/23_modern/run.py [--tasks digits diabetes fashion shakespeare] [--budget 180] [--seeds 3]
                                       [--data-dir FOLDER]

For each task and seed one search of each space, as `autoranger search --task TASK --space SPACE --budget 3m` is. What
both export, and the better one of AdamW with warmup and cosine or linear decay at the rate and decay that the search
found best, then train on seeds that no search has seen. What is in the record is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from autoranger.components.core.config import Config
from autoranger.components.core.errors import DataError
from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.race.baselines import COSINE, LINEAR
from autoranger.search.space import in_words
from autoranger.search.study import search
from autoranger.search.tasks import create
from autoranger.search.tasks.task import Task
from autoranger.search.verdict.statistics import paired_difference

HERE = Path(__file__).parent
RECORD = HERE / "record.json"
SPACES = ("modern", "ranger21")
ADAMW = "AdamW with warmup and decay"
UNSEEN = {"shakespeare": range(800_000_000, 800_000_016)}
"""Fresh seeds, for tasks whose trainings are long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=["digits", "diabetes", "fashion", "shakespeare"])
    parser.add_argument("--budget", type=float, default=180.0, help="seconds of a search")
    parser.add_argument("--seeds", type=int, default=3, help="searches of each space for each task")
    parser.add_argument("--data-dir", type=Path, help="folder of data files")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keep_freed_memory()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name in asked.tasks:
        try:
            task = create(name, "cpu", asked.data_dir)
            Population(task)
        except DataError as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        for seed in range(asked.seeds):
            mine = record.setdefault(name, {})
            if str(seed) not in mine:
                mine[str(seed)] = compared(task, seed, asked.budget)
                RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(summary(record))


def compared(task: Task, seed: int, budget: float) -> dict[str, Any]:
    """Both searches, and their exports and AdamW on fresh seeds."""
    configs, searches = dict[str, Config](), dict[str, Any]()
    for space in SPACES:
        began, storage = time.time(), optuna.storages.InMemoryStorage()
        outcome = search(task, storage, "study", space=space, budget=budget, seed=seed)
        configs[space] = replace(outcome.config, proxy={})
        adamw = max((f for f in outcome.finalists if {COSINE, LINEAR} & {*f.roles}), key=lambda f: f.valid)
        configs.setdefault(ADAMW, replace(Config.from_dict(adamw.config), proxy={}))
        searches[space] = {"seconds": round(time.time() - began, 1), "verdict": outcome.evidence.verdict}
    seeds = [*UNSEEN.get(task.name, range(800_000_000, 800_000_064))]
    scores = Population(task).train(list(dict.fromkeys(configs.values())), seeds, task.steps, splits=("test",))["test"]
    by_config = dict(zip(dict.fromkeys(configs.values()), scores, strict=True))
    return {
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
        "budget": budget,
        "searches": searches,
        "configs": {name: config.to_dict() for name, config in configs.items()},
        "test": {
            name: [None if np.isnan(x) else round(float(x), 6) for x in by_config[c]] for name, c in configs.items()
        },
    }


def summary(record: dict[str, Any]) -> str:
    """The table of the README."""
    lines = [
        "| task | search | seconds | exported | test | over the eight's (95 %) | over AdamW's (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, by_seed in record.items():
        for seed, found in by_seed.items():
            test = {key: np.array([np.nan if x is None else x for x in xs]) for key, xs in found["test"].items()}
            gains = [paired_difference(test["modern"], test[other], comparisons=2) for other in ("ranger21", ADAMW)]
            cells = [f"{d.effect:+.4f} [{d.low:+.4f}, {d.high:+.4f}]" for d in gains]
            exported = in_words(found["configs"]["modern"]["components"])
            seconds, mean = found["searches"]["modern"]["seconds"], np.nanmean(test["modern"])
            lines.append(f"| {name} | {seed} | {seconds:.0f} | {exported} | {mean:.4f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

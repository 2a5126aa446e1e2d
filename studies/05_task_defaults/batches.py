"""Which batch size? Half, all and twice the task's own at the same number of examples seen.

usage: python studies/05_task_defaults/batches.py [--seeds 4] [--data-dir DIR] TASK [TASK …]

AdamW and full Ranger21 with the rates of the task's range and one beyond either end, as in run.py; larger batches take
fewer steps. Time is the processor's time of this process, so that a busy machine does not count. Writes batches.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path

import torch
from run import OPTIMIZERS, both

from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.space import lr_grid
from autoranger.search.tasks import find

RECORD = Path(__file__).parent / "batches.json"


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="+", metavar="TASK")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"tasks": {}}
    record |= {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seeds": args.seeds,
    }
    for name in args.tasks:
        task, sizes = find(name)("cpu", args.data_dir), {}
        low, high = task.lr_range
        rates, own, steps = lr_grid(low / 3.4, high * 3.4), task.batch_size, task.steps
        for size in (own // 2, own, 2 * own):
            task.batch_size = size
            population, begin = Population(task), time.process_time()
            row = sizes[size] = {"steps": steps * own // size}
            row |= both(population, rates, row["steps"], list(range(args.seeds)))
            runs = len(OPTIMIZERS) * len(rates) * args.seeds
            row["milliseconds per run"] = round((time.process_time() - begin) * 1000 / runs, 1)
            best = {key: (row[key]["best lr"], row[key]["score"]) for key in OPTIMIZERS}
            print(name, size, best, row["ranger21 - adamw"], row["milliseconds per run"], flush=True)
        record["tasks"][name] = sizes
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Does AdamW stay at the uniform prediction without normalization, where full Ranger21 gets away from it?

usage: python studies/06_without_normalization/run.py [--data-dir DIR]

The proxy of task `cifar_nf` (a bottleneck ResNet of 50 layers without normalization, 16×16 images, batch 32) trains for
160 steps on the first 5,000 training images, with five seeds and seven learning rates for each of AdamW and full
Ranger21: the same initialisations and batches for both. What counts is the cross entropy of 1,000 validation images:
a uniform prediction has ln 10 = 2.303. Writes record.json, run by run, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from autoranger import Config
from autoranger.search.population import Population
from autoranger.search.space import lr_grid
from autoranger.search.tasks.cifar_nf import CifarNormalizerFree

RECORD = Path(__file__).parent / "record.json"
SEEDS = range(5)
RATES = lr_grid(1e-4, 1e-1)
POINTS = 4


class Subset(CifarNormalizerFree):
    """5,000 images, and the cross entropy as metric."""

    metric_name = "cross entropy"

    def data(self):
        data = super().data()
        counts = {"train": 5_000, "valid": 1_000}
        return {name: tuple(part[:count] for part in data[name]) for name, count in counts.items()}

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        return self.loss(output, target)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path)
    task = Subset("cpu", parser.parse_args().data_dir)
    population, steps = Population(task), 160
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record |= {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "steps": steps,
        "seeds": len(SEEDS),
        "metric": f"cross entropy of 1,000 validation images, uniform {math.log(10):.3f}",
        "curve": f"the metric at {POINTS} evenly spaced points of the training; null where it diverged",
    }
    runs = record.setdefault("runs", [])
    done = {(run["optimizer"], run["lr"], run["seed"]) for run in runs}
    for seed in SEEDS:
        for name in ("adamw", "ranger21"):
            for lr in RATES:
                if (name, lr, seed) in done:
                    continue
                begin = time.perf_counter()
                curve = population.train([Config.preset(name, lr=lr)], [seed], steps, splits=(), curve=POINTS)["curve"]
                losses = [round(x, 4) if math.isfinite(x) else None for x in curve.flatten().tolist()]
                runs.append({"optimizer": name, "lr": lr, "seed": seed, "curve": losses})
                print(f"{name:9} lr {lr:<7} seed {seed} {losses} {time.perf_counter() - begin:.0f} s", flush=True)
                RECORD.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()

"""Does AdamW stay at the uniform prediction without normalization, where full Ranger21 gets away from it?

usage: python studies/06_without_normalization/run.py [--data-dir DIR]

The proxy of task `cifar_nf` (a bottleneck ResNet of 50 layers without normalization, 16×16 images, batch 32) trains for
160 steps on the first 5,000 training images, with five seeds and seven learning rates for each of AdamW and full
Ranger21: the same initialisations and batches for both. What counts is the cross entropy of 1,000 validation images:
a uniform prediction has ln 10 = 2.303. Then the same at twice the resolution inside the net (a stem of stride 1), which
takes three times as long, at three of the rates. Writes record.json, run by run, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoranger import Config
from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.space import lr_grid
from autoranger.search.tasks.cifar_nf import BottleneckResNet, CifarNormalizerFree

RECORD = Path(__file__).parent / "record.json"
RATES, SEEDS = lr_grid(1e-4, 1e-1), 5
FINE_RATES = (1e-3, 3e-3, 1e-2)
STEPS, POINTS = 160, 4


class Subset(CifarNormalizerFree):
    """5,000 images, and the cross entropy as metric."""

    metric_name = "cross entropy"
    stem_stride = 2

    def data(self):
        data = super().data()
        counts = {"train": 5_000, "valid": 1_000}
        return {name: tuple(part[:count] for part in data[name]) for name, count in counts.items()}

    def model(self) -> nn.Module:
        model = BottleneckResNet(16)
        model.stem[0].stride = (self.stem_stride,) * 2
        return model

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        return self.loss(output, target)


class Fine(Subset):
    """With 16×16 positions in the first stage instead of 8×8."""

    stem_stride = 1


def wanted() -> Iterator[dict[str, Any]]:
    for stride, rates in ((2, RATES), (1, FINE_RATES)):
        for seed in range(SEEDS):
            for name in ("adamw", "ranger21"):
                yield from ({"stem stride": stride, "optimizer": name, "lr": lr, "seed": seed} for lr in rates)


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path)
    data_dir = parser.parse_args().data_dir
    populations = {kind.stem_stride: Population(kind("cpu", data_dir)) for kind in (Subset, Fine)}
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"runs": []}
    record |= {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "steps": STEPS,
        "metric": f"cross entropy of 1,000 validation images, uniform {math.log(10):.3f}",
        "curve": f"the metric at {POINTS} evenly spaced points of the training; null where it diverged",
    }
    done = [{key: value for key, value in run.items() if key != "curve"} for run in record["runs"]]
    for run in wanted():
        if run in done:
            continue
        begin, config = time.perf_counter(), Config.preset(run["optimizer"], lr=run["lr"])
        population = populations[run["stem stride"]]
        curve = population.train([config], [run["seed"]], STEPS, splits=(), curve=POINTS)["curve"]
        losses = [round(x, 4) if math.isfinite(x) else None for x in curve.flatten().tolist()]
        record["runs"].append(run | {"curve": losses})
        print(*run.values(), losses, f"{time.perf_counter() - begin:.0f} s", flush=True)
        RECORD.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()

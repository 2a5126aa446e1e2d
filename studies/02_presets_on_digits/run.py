"""Does each preset train as well as an independent implementation? Short runs on digits, paired by seed.

usage: python studies/02_presets_on_digits/run.py    (needs the project's `test` extra)

Each preset gets the best learning rate of a sweep (4 seeds); then preset and independent implementation train on the
same 12 fresh seeds with that rate: same initialisations, same batches, 300 steps. For `ranger_lars` and `paratrooper`
there is no independent implementation of the published rule, so only their own accuracy is reported.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import adabelief_pytorch
import madgrad
import numpy as np
import pytorch_optimizer
import torch
from torch import nn

from autoranger import Config
from autoranger.components.presets import PRESETS
from autoranger.search.clock import Clock
from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.progress import Progress
from autoranger.search.tasks.digits import Digits
from autoranger.search.vectorization import batch_order
from autoranger.search.verdict.comparison import sweep_rates
from autoranger.search.verdict.statistics import paired_difference
from tests.test_presets import timm

SEEDS = list(range(100, 112))
Make = Callable[[Any, float, int], torch.optim.Optimizer]

INDEPENDENT: dict[str, Make] = {
    "ranger21": lambda p, lr, steps: pytorch_optimizer.Ranger21(p, lr=lr, num_iterations=steps),
    "adamw": lambda p, lr, _: torch.optim.AdamW(p, lr=lr),
    "adam": lambda p, lr, _: torch.optim.Adam(p, lr=lr),
    "amsgrad": lambda p, lr, _: torch.optim.Adam(p, lr=lr, amsgrad=True),
    "sgd": lambda p, lr, _: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "radam": lambda p, lr, _: torch.optim.RAdam(p, lr=lr),
    "ranger": lambda p, lr, _: pytorch_optimizer.Ranger(p, lr=lr, degenerated_to_sgd=True),
    "lars": lambda p, lr, _: timm("lars").Lars(p, lr=lr, momentum=0.9, weight_decay=5e-4, eps=0),
    "lamb": lambda p, lr, _: timm("lamb").Lamb(p, lr=lr, max_grad_norm=None),
    "madgrad": lambda p, lr, _: madgrad.MADGRAD(p, lr=lr),
    "adabelief": lambda p, lr, _: adabelief_pytorch.AdaBelief(p, lr=lr, rectify=False, print_change_log=False),
    "adapnm": lambda p, lr, _: pytorch_optimizer.AdaPNM(
        p, lr=lr, weight_decay=PRESETS["adapnm"].fields["weight_decay"]
    ),
    "adams": lambda p, lr, _: pytorch_optimizer.AdamS(p, lr=lr),
}


def independent(task: Digits, population: Population, make: Make, lr: float) -> np.ndarray:
    """Validation accuracy `[S]` of an ordinary training loop."""
    (inputs, targets), (valid, expected) = population.data["train"], population.data["valid"]
    scores = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        model: nn.Module = task.model()
        optimizer = make(model.parameters(), lr, task.steps)
        for indices in batch_order(len(inputs), task.batch_size, task.steps, seed):
            optimizer.zero_grad()
            task.loss(model(inputs[indices]), targets[indices]).backward()
            optimizer.step()
        with torch.no_grad():
            scores.append(float(task.metric(model(valid), expected)))
    return np.array(scores)


def main() -> None:
    keep_freed_memory()
    task = Digits()
    population = Population(task)
    configs = {name: Config.preset(name) for name in PRESETS}
    # `adamw` without its decay is `adam` without L2, so each is swept by itself.
    swept = {
        name: sweep_rates(population, {name: config}, Clock(None, Progress()), [0, 1, 2, 3])[name]
        for name, config in configs.items()
    }
    ours = dict(zip(swept, population.train(list(swept.values()), SEEDS, task.steps)["valid"], strict=True))
    rows: dict[str, dict[str, Any]] = {}
    for name, config in swept.items():
        rows[name] = {"lr": config.lr, "ours": round(float(np.nanmean(ours[name])), 4)}
        if name in INDEPENDENT:
            theirs = independent(task, population, INDEPENDENT[name], config.lr)
            rows[name] |= {
                "independent": round(float(theirs.mean()), 4),
                "difference": asdict(paired_difference(ours[name], theirs)),
            }
        print(name, rows[name], flush=True)
    record = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {n: version(n) for n in ("torch", "pytorch_optimizer", "timm", "madgrad", "adabelief-pytorch")},
        "seeds": len(SEEDS),
        "steps": task.steps,
        "metric": "validation accuracy; differences with 95% intervals of the paired mean",
        "results": rows,
    }
    (Path(__file__).parent / "record.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

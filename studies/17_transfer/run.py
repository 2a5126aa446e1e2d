"""Does a rate that was found on a proxy carry over? Four tasks: wider, in larger batches, for longer, all at once.

usage: python studies/17_transfer/run.py [--tasks NAME …] [--scales NAME …] [--optimizers NAME …] --data-dir DIR

For each optimizer the best rate of the proxy is that of a sweep. At every other scale it trains with that rate as it
is, with the rate and weight decay that `core.laws` make of it, and with a sweep of both kinds. What a rate loses is its
distance to the best of both sweeps at that scale. Adds what it finds to record.json, scale by scale.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from autoranger import Config
from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.serialization import to_json
from autoranger.search.tasks import create
from autoranger.search.tasks.task import Task
from autoranger.search.transfer import on_the_way, summit, usable, with_proxy

RECORD = Path(__file__).parent / "record.json"
FULL = Config.preset("ranger21").components
OPTIMIZERS = {
    "adamw": Config.preset("adamw"),
    "ranger21": Config.preset("ranger21"),
    "without norm_loss": Config(components={k: v for k, v in FULL.items() if k != "norm_loss"}),
    "schedule alone": Config(components={k: FULL[k] for k in ("linear_warmup", "explore_exploit")}),
    "momentum and clipping": Config(
        components={k: FULL[k] for k in ("adaptive_gradient_clipping", "positive_negative_momentum", "explore_exploit")}
    ),
}


class Scale(NamedTuple):
    """Of a training, as multiples of the proxy's."""

    width: int = 1
    batch: int = 1
    steps: float = 1


SCALES = {
    "2 × width": Scale(width=2),
    "4 × width": Scale(width=4),
    "8 × width": Scale(width=8),
    "2 × batch": Scale(batch=2),
    "4 × batch": Scale(batch=4),
    "8 × batch": Scale(batch=8),
    "3 × steps": Scale(steps=3),
    "7.5 × steps": Scale(steps=7.5),
    "2 × all": Scale(2, 2, 2),
    "4 × all": Scale(4, 4, 4),
}
SEEDS = {"shakespeare": 2, "digits": 32, "fashion": 8, "cifar": 4}
"""Of each training: the fewer, the larger the validation data and the longer a training."""

TEXT_STEPS = 400
"""Of the text task's proxy here, which are fewer than a search has."""

RATES = 10 ** np.arange(-3.25, -0.4, 0.25)
"""Of the proxy's sweep with AdamW. The other optimizers get twice as much."""

DECADES = np.array([-0.75, -0.5, -0.25, 0.0, 0.25, 0.5])
"""From the proxy's best rate, in a scale's sweeps."""


def proxy_task(name: str, data_dir: Path | None) -> Task:
    """The task at the scale of the proxy."""
    task = create(name, "cpu", data_dir)
    if name == "shakespeare":
        task.steps = TEXT_STEPS
    return task


def best_rate(population: Population, name: str, seeds: list[int]) -> float:
    """The top of a sweep at the scale of the proxy."""
    rates = RATES * (1 if name == "adamw" else 2)
    configs = [replace(OPTIMIZERS[name], lr=float(rate)) for rate in rates]
    values = population.train(configs, seeds, population.task.steps)["valid"]
    return float(10 ** summit(np.log10(rates), values)[0])


def at_scale(task: Task, scale: Scale, config: Config, seeds: list[int]) -> dict[str, Any]:
    """What a config of the proxy loses at a scale, in points of the metric, with standard errors over the seeds."""
    target = scale.width, scale.batch * task.batch_size, round(scale.steps * task.steps)
    there, _ = on_the_way(task, target, 1.0)
    plain = [replace(config, lr=float(config.lr * 10**d), proxy={}) for d in DECADES]
    scaled = [replace(other, proxy=config.proxy) for other in plain]
    values = Population(there).train(plain + scaled, seeds, there.steps)["valid"]
    best, here = values[int(np.argmax([*map(usable, values)]))], list(DECADES).index(0)
    lost = {"plain": best - values[here], "transferred": best - values[len(DECADES) + here]}
    means = values.mean(axis=1).round(4).reshape(2, -1)
    return {
        "width": scale.width,
        "batch": there.batch_size,
        "steps": there.steps,
        "proxy's rate": config.lr,
        "decades": DECADES.tolist(),
        "plain": means[0].tolist(),
        "scaled": means[1].tolist(),
        "loses": {way: round(float(each.mean()), 4) for way, each in lost.items()},
        "error": {way: round(float(each.std(ddof=1) / len(seeds) ** 0.5), 4) for way, each in lost.items()},
    }


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", choices=SEEDS, metavar="NAME", default=list(SEEDS))
    parser.add_argument("--scales", nargs="+", choices=SCALES, metavar="NAME", default=list(SCALES))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, metavar="NAME", default=list(OPTIMIZERS))
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    for name in args.tasks:
        task, seeds = proxy_task(name, args.data_dir), list(range(SEEDS[name]))
        proxy, population = with_proxy(Config(), task, seed=0).proxy, Population(task)
        for optimizer in args.optimizers:
            config = replace(OPTIMIZERS[optimizer], lr=best_rate(population, optimizer, seeds), proxy=proxy)
            print(name, optimizer, f"best rate {config.lr:.3g}", flush=True)
            for place in args.scales:
                began = time.time()
                row = at_scale(task, SCALES[place], config, seeds)
                print(name, optimizer, place, row["loses"], row["error"], f"{time.time() - began:.0f} s", flush=True)
                note(name, place, optimizer, row)


def note(task: str, place: str, optimizer: str, row: dict[str, Any]) -> None:
    """Adds a row to the record."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"tasks": {}}
    record |= {
        "date": date.today().isoformat(),
        "seeds": SEEDS,
        "metric": "validation: negative bits per character of shakespeare, else accuracy",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    record["tasks"].setdefault(task, {}).setdefault(place, {})[optimizer] = to_json(row)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

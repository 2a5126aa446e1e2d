"""Does a rate that was found on a proxy carry over? The text task: wider, in larger batches, for longer, all at once.

usage: python studies/17_transfer/run.py [--quick] [--only NAME …] --data-dir DIR

For each optimizer the best rate of the proxy (width 24, batch size 8, 400 steps) is that of a sweep. At every other
scale it trains with that rate as it is, with the rate and weight decay that `core.laws` make of it, and with a sweep of
both kinds. What a rate loses is its distance to the best of both sweeps at that scale. Adds what it finds to
record.json, scale by scale.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from autoranger import Config
from autoranger.components.core.proxy import proxy_of
from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.tasks.shakespeare import Shakespeare, Transformer

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
    """Of a training."""

    width: int = 24
    batch: int = 8
    steps: int = 400
    blocks: int = 2


BASE = Scale()
SCALES = {
    "width 48": Scale(width=48),
    "width 96": Scale(width=96),
    "width 192": Scale(width=192),
    "blocks 8": Scale(blocks=8),
    "batch 16": Scale(batch=16),
    "batch 32": Scale(batch=32),
    "batch 64": Scale(batch=64),
    "steps 1,200": Scale(steps=1200),
    "steps 3,000": Scale(steps=3000),
    "width 48, batch 16, steps 800": Scale(48, 16, 800),
    "width 96, batch 32, steps 1,600": Scale(96, 32, 1600),
    "width 192, batch 64, steps 3,000": Scale(192, 64, 3000),
}
QUICK = {
    "optimizers": ("adamw", "ranger21"),
    "scales": ("width 96", "batch 64", "steps 1,200", "width 48, batch 16, steps 800"),
}
STEPS_OF_RATES = np.array([-0.75, -0.5, -0.25, 0.0, 0.25, 0.5])
"""Decades from the proxy's best rate, in a scale's sweeps."""


class Text(Shakespeare):
    """The text task at a scale."""

    def __init__(self, scale: Scale, data_dir: Path | None) -> None:
        super().__init__("cpu", data_dir)
        self.scale, self.batch_size, self.steps = scale, scale.batch, scale.steps

    def model(self) -> nn.Module:
        width = self.scale.width
        return Transformer(
            characters=65, context=self.context, width=width, heads=2, blocks=self.scale.blocks, hidden=2 * width
        )


def best_rate(rates: np.ndarray, scores: np.ndarray) -> float:
    """The top of a parabola through the best mean and its neighbours, over the logarithm of the rate."""
    means = np.where(np.isnan(scores).any(axis=1), -np.inf, scores.mean(axis=1))
    i = int(np.clip(means.argmax(), 1, len(rates) - 2))
    x, y = np.log10(rates[i - 1 : i + 2]), means[i - 1 : i + 2]
    if not np.isfinite(y).all():
        return float(rates[means.argmax()])
    a, b, _ = np.polyfit(x, y, 2)
    return float(10 ** np.clip(-b / (2 * a), x[0], x[-1])) if a < 0 else float(rates[means.argmax()])


def train(population: Population, configs: list[Config], seeds: list[int], steps: int) -> np.ndarray:
    return population.train(configs, seeds, steps)["valid"]


def mean(scores: np.ndarray) -> float:
    return float("-inf") if np.isnan(scores).any() else float(scores.mean())


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two optimizers and four scales: some minutes")
    parser.add_argument("--only", nargs="+", choices=SCALES, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    optimizers = QUICK["optimizers"] if args.quick else tuple(OPTIMIZERS)
    scales = args.only or (QUICK["scales"] if args.quick else tuple(SCALES))
    seeds = list(range(args.seeds))

    task = Text(BASE, args.data_dir)
    torch.manual_seed(0)
    proxy = proxy_of(task.model(), BASE.batch, BASE.steps, len(task.data()["train"][1]))
    population, at = Population(task), {}
    for name in optimizers:
        rates = 10 ** np.arange(-2.75, -0.7, 0.25) * (1 if name == "adamw" else 2)
        scores = train(population, [replace(OPTIMIZERS[name], lr=float(r)) for r in rates], seeds, BASE.steps)
        at[name] = best_rate(rates, scores)
        print("proxy", name, f"best rate {at[name]:.3g}", flush=True)

    for place in scales:
        scale = SCALES[place]
        population = Population(Text(scale, args.data_dir))
        for name in optimizers:
            rates = at[name] * 10**STEPS_OF_RATES
            plain = [replace(OPTIMIZERS[name], lr=float(r)) for r in rates]
            scaled = [replace(config, proxy=proxy) for config in plain]
            scores = train(population, plain + scaled, seeds, scale.steps)
            means = np.array([mean(s) for s in scores]).reshape(2, -1)
            best, here = means.max(), list(STEPS_OF_RATES).index(0)
            row = {
                "scale": scale._asdict(),
                "proxy's rate": at[name],
                "decades": STEPS_OF_RATES.tolist(),
                "plain": means[0].round(4).tolist(),
                "scaled": means[1].round(4).tolist(),
                "plain loses": round(best - means[0, here], 4),
                "transferred loses": round(best - means[1, here], 4),
            }
            print(
                place,
                name,
                {k: row[k] for k in ("plain loses", "transferred loses")},
                means.round(3).tolist(),
                flush=True,
            )
            note(place, name, row, args.seeds)


def note(place: str, name: str, row: dict[str, Any], seeds: int) -> None:
    """Adds a row to the record."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"scales": {}}
    record |= {
        "date": date.today().isoformat(),
        "seeds": seeds,
        "metric": "validation negative bits per character",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    record["scales"].setdefault(place, {})[name] = row
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

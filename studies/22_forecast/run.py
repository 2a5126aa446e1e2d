"""Does what wins at a proxy's length still win at ten times that? See README.md.

    python studies/22_forecast/run.py --data-dir data      # trains, and adds to record.json
    python studies/22_forecast/fit.py                      # fits the forecast, and says how well it is calibrated

For each setting, a task with a length of its proxy, subsets are swept over learning rates like the candidates of a
search. The best of them and the baselines then train on common seeds for a quarter of the proxy's length, a half, the
whole, three and ten times of it, with rate and weight decay as the scale laws have them there.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from autoranger.components.core.config import Config
from autoranger.components.core.proxy import proxy_of
from autoranger.search.population import Population
from autoranger.search.race.baselines import families
from autoranger.search.space import Space, lr_grid, neighbours
from autoranger.search.tasks import create

HERE = Path(__file__).parent
RECORD = HERE / "record.json"
SHARES = (0.25, 0.5, 1.0, 3.0, 10.0)
ARMS, BEST = 40, 16

# Steps of the proxy, seeds of the sweep, of the trainings up to three times the length, and of those of ten times.
SETTINGS = {
    "digits": [(100, 4, 16, 8), (300, 4, 16, 8)],
    "diabetes": [(60, 4, 32, 16), (200, 4, 32, 16)],
    "fashion": [(100, 2, 8, 4), (400, 2, 8, 4)],
    "cifar": [(100, 2, 6, 4), (400, 2, 4, 3)],
    "shakespeare": [(250, 2, 4, 3), (1000, 1, 3, 2)],
}


def best_rates(population: Population, arms: list[Config], seeds: list[int], steps: int) -> dict[Config, float]:
    """The arms with their best learning rates, and the mean metric there; the best ones first."""
    rates, known = lr_grid(*population.task.lr_range), dict[Config, dict[float, float]]()
    wanted = [(arm, lr) for arm in arms for lr in rates]
    for _ in range(4):
        values = population.train([replace(arm, lr=lr) for arm, lr in wanted], seeds, steps)["valid"].mean(axis=1)
        for (arm, lr), value in zip(wanted, np.nan_to_num(values, nan=-np.inf), strict=True):
            known.setdefault(arm, {})[lr] = float(value)
        leading = {arm: max(found, key=found.__getitem__) for arm, found in known.items()}
        wanted = [(arm, lr) for arm, best in leading.items() for lr in neighbours(best) if lr not in known[arm]]
        if not wanted:
            break
    found = {replace(arm, lr=lr): known[arm][lr] for arm, lr in leading.items()}
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def measured(name: str, data_dir: Path | None, steps: int, sweeping: int, seeds: int, last: int) -> dict[str, Any]:
    """The metric of the best subsets and the baselines at every length, by seed."""
    task = create(name, "cpu", data_dir)
    task.steps = steps
    population, numbers = Population(task), count(500_000_000)
    sweep, common, later = (list(islice(numbers, size)) for size in (sweeping, seeds, last))
    baselines = {}
    for role, arms in families(Space()).items():
        baselines[role] = next(iter(best_rates(population, arms, sweep, steps)))
    space = Space.of("modern")
    others = best_rates(population, space.arms(ARMS, seed=steps), sweep, steps)
    chosen = [config for config in others if config not in baselines.values()][:BEST]
    proxy = proxy_of(task.model(), task.batch_size, steps, len(task.data()["train"][1]))
    configs = [replace(config, proxy=proxy) for config in [*baselines.values(), *chosen]]
    lengths = [max(1, round(steps * share)) for share in SHARES]
    values = []
    for length in lengths:
        some = common if length <= steps else later  # what is forecast has nothing in common with what it is told by
        values.append(np.round(population.train(configs, some, length)["valid"], 5).tolist())
    return {
        "task": name,
        "steps": steps,
        "lengths": lengths,
        "baselines": list(baselines),
        "configs": [{"lr": config.lr, "components": list(config.components)} for config in configs],
        "values": values,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--data-dir", type=Path, help="folder of data files")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in asked.tasks:
        for setting in SETTINGS[name]:
            record: list[dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.exists() else []
            if any((row["task"], row["steps"]) == (name, setting[0]) for row in record):
                continue
            began = time.time()
            row = measured(name, asked.data_dir, *setting)
            row |= {"date": time.strftime("%Y-%m-%d"), "seconds": round(time.time() - began)}
            RECORD.write_text(json.dumps([*record, row]).replace("}, {", "},\n{") + "\n")
            print(f"{name}, {setting[0]} steps: {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()

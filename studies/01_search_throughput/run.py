"""How many candidate-steps per second: a population against an Optuna study that trains one model per trial.

usage: python studies/01_search_throughput/run.py [--repeats 5]

Both sides train the digits proxy (task `digits`: its model, batches, steps, scoring at the end) on the same machine in
the same process, in turns. The Optuna side is what one writes by hand: a study with a random learning rate for each
trial, one model at a time, `torch.optim.AdamW` as it comes (on a CPU a loop over parameters), foreach and fused. The
population side trains the first round of the search, 256 subsets × 5 learning rates, scored as in the search; and as
many candidates of full Ranger21 alone and of AdamW alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import optuna
import torch

from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.space import Space, lr_grid
from autoranger.search.tasks.digits import Digits
from autoranger.search.vectorization import batch_order

HERE = Path(__file__).parent


def one_per_trial(task: Digits, data, trials: int, steps: int, **variant: bool) -> float:
    """Steps per second of an Optuna study with one model for each trial."""
    (inputs, targets), (valid, expected) = data["train"], data["valid"]

    def objective(trial: optuna.Trial) -> float:
        model = task.model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=trial.suggest_float("lr", 1e-3, 1e-1, log=True), **variant)
        for indices in batch_order(len(inputs), task.batch_size, steps, trial.number):
            optimizer.zero_grad()
            task.loss(model(inputs[indices]), targets[indices]).backward()
            optimizer.step()
        with torch.no_grad():
            return float(task.metric(model(valid), expected))

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    begin = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    return trials * steps / (time.perf_counter() - begin)


def population(trainer: Population, configs, steps: int) -> float:
    """Candidate-steps per second of a population."""
    begin = time.perf_counter()
    trainer.train(configs, [0], steps)
    return len(configs) * steps / (time.perf_counter() - begin)


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task, space = Digits(), Space()
    trainer, steps = Population(task), task.steps // 2
    grid = lr_grid(*task.lr_range)
    arms = {"256 subsets": space.arms(256, 0), "ranger21": [space.default] * 256, "adamw": [space.plain] * 256}
    runs = {f"population, {name}": [replace(a, lr=lr) for a in group for lr in grid] for name, group in arms.items()}
    variants = {"loop": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    speeds: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        found = {f"optuna, adamw {n}": one_per_trial(task, trainer.data, 8, steps, **v) for n, v in variants.items()}
        found |= {name: population(trainer, configs, steps) for name, configs in runs.items()}
        if repeat:  # the first one warms up
            for name, speed in found.items():
                speeds.setdefault(name, []).append(speed)

    def ratio(name: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(speeds[name], speeds[other], strict=True)), 1)

    record = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "optuna": optuna.__version__},
        "repeats": repeats,
        "steps": steps,
        "unit": "candidate-steps per second; ratios are medians over paired repeats",
        "results": {
            name: {
                "median": round(statistics.median(values)),
                "min": round(min(values)),
                "max": round(max(values)),
                "times torch.optim.AdamW()": ratio(name, "optuna, adamw loop"),
                "times torch.optim.AdamW(fused=True)": ratio(name, "optuna, adamw fused"),
            }
            for name, values in speeds.items()
        },
    }
    (HERE / "record.json").write_text(json.dumps(record, indent=2) + "\n")
    for name, row in record["results"].items():
        print(f"{name:24} {row}")


if __name__ == "__main__":
    main()

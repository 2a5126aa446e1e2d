"""Candidate-steps per second of a population, for the proxy of every task, against training one model after another.

usage: python studies/10_population_throughput/run.py [--tasks digits fashion …] [--repeats 3] [--seconds 1.5]
       python studies/10_population_throughput/run.py --device cuda [--minutes 8]

(a) one model after another with `torch.optim.AdamW(fused=True)`, with all threads or one, whichever is faster;
(b) an Optuna study with one model for each trial and `n_jobs=2`, same optimizer;
and populations of K candidates with AdamW, with full Ranger21, and with the 256 subsets that a search begins with.
Steps of training alone, without scoring; everything in turns, `repeats` times, medians.

With `--device cuda` see gpu.py: other contestants, `--minutes` in all, each figure once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import gpu
import optuna
import torch

from autoranger import Config
from autoranger.bench import machine
from autoranger.figures import canvas, save
from autoranger.search.population import Population
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.space import Space, lr_grid
from autoranger.search.tasks import find
from autoranger.search.tasks.task import Task
from autoranger.search.vectorization import batch_order

HERE = Path(__file__).parent
SIZES = (1, 4, 16, 64, 256, 1024)
LONGEST = 12.0
"""Seconds that the shortest possible measurement may take; larger populations are left out where it would be more."""


def train_one(task: Task, data: tuple[torch.Tensor, torch.Tensor], steps: int, lr: float, seed: int) -> None:
    """One model, as one writes it by hand."""
    inputs, targets = data
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)
    for indices in batch_order(len(inputs), task.batch_size, steps, seed):
        optimizer.zero_grad()
        task.loss(model(task.augment(inputs[indices])), targets[indices]).backward()
        optimizer.step()


def one_after_another(trainer: Population, steps: int, threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    train_one(trainer.task, trainer.data["train"], steps, 1e-3, 0)
    torch.set_num_threads(before)
    return steps / (time.perf_counter() - begin)


def optuna_study(trainer: Population, steps: int, trials: int = 4) -> float:
    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        train_one(trainer.task, trainer.data["train"], steps, lr, trial.number)
        return 0.0

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    begin = time.perf_counter()
    study.optimize(objective, n_trials=trials, n_jobs=2)
    return trials * steps / (time.perf_counter() - begin)


def population(trainer: Population, configs: Sequence[Config], steps: int) -> float:
    begin = time.perf_counter()
    trainer.train(configs, [0], steps, splits=())
    return len(configs) * steps / (time.perf_counter() - begin)


def measured(call: Callable[[int], float], per_step: float, seconds: float) -> Callable[[], float]:
    """The call with as many steps as take about `seconds`, warmed up."""
    steps = max(2, round(seconds / per_step))
    call(2)
    return lambda: call(steps)


def contestants(trainer: Population, seconds: float) -> dict[str, Callable[[], float]]:
    """Everything to measure on one task."""
    space, grid = Space(), lr_grid(*trainer.task.lr_range)
    alone = 1 / one_after_another(trainer, 10, 1)
    alone = 1 / one_after_another(trainer, 10, 1)
    found = {
        "(a) one after another": measured(
            lambda n: one_after_another(trainer, n, torch.get_num_threads()), alone, seconds
        ),
        "(a) with one thread": measured(lambda n: one_after_another(trainer, n, 1), alone, seconds),
        "(b) Optuna, n_jobs=2": measured(lambda n: optuna_study(trainer, n), 2 * alone, seconds),
    }
    arms = {"adamw": [space.plain], "ranger21": [space.default], "256 subsets": space.arms(256, 0)}
    for name, own in arms.items():
        for size in SIZES:
            if name == "256 subsets" and size < 256:
                continue
            configs = [replace(arm, lr=lr) for arm, lr in islice(zip(cycle(own), cycle(grid), strict=False), size)]
            begin = time.perf_counter()
            population(trainer, configs, 2)
            per_step = (time.perf_counter() - begin) / 2
            if 2 * per_step > LONGEST:
                break
            found[f"{name}, {size}"] = measured(lambda n, c=configs: population(trainer, c, n), per_step, seconds)
    return found


def draw(record: dict[str, dict[str, object]]) -> None:
    """Speed-up over (a) against K, a line for each task."""
    figure, axes = canvas(7, 4.2)
    for name, row in record.items():
        found = row["ranger21"]
        axes.plot([int(k) for k in found], list(found.values()), marker="o", markersize=3, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("candidates trained at once (full Ranger21)")
    axes.set_ylabel("candidate-steps per second, × (a)")
    axes.legend(fontsize=8)
    save(figure, HERE / "speedup.svg")


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--tasks", nargs="+", default=["digits", "diabetes", "fashion", "shakespeare", "cifar", "cifar_nf"]
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, help="of each measurement: 1.5, or 0.2 on a GPU")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.device != "cpu":
        gpu.measure(args.tasks, args.device, args.seconds or 0.2, 60 * args.minutes, HERE / "record_gpu.json")
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = HERE / f"record_{args.device}.json"
    record = json.loads(path.read_text()) if path.exists() else {"tasks": {}}
    record |= {"machine": machine(args.device), "repeats": args.repeats}
    for name in args.tasks:
        trainer = Population(find(name)(args.device))
        calls = contestants(trainer, args.seconds or 1.5)
        speeds: dict[str, list[float]] = {key: [] for key in calls}
        for _ in range(args.repeats):
            for key, call in calls.items():
                speeds[key].append(call())
        medians = {key: statistics.median(found) for key, found in speeds.items()}
        base = max(medians["(a) one after another"], medians["(a) with one thread"])
        row = {
            "candidate_steps_per_second": {
                key: [round(x) if x > 50 else round(x, 1) for x in found] for key, found in speeds.items()
            },
            "parameters": sum(p.numel() for p in trainer.task.model().parameters()),
            "rows_of_a_chunk": trainer.rows,
            "optuna": round(medians["(b) Optuna, n_jobs=2"] / base, 2),
        }
        for arm in ("adamw", "ranger21", "256 subsets"):
            row[arm] = {k.split(", ")[1]: round(v / base, 2) for k, v in medians.items() if k.startswith(f"{arm}, ")}
        record["tasks"][name] = row
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(
            name,
            f"(a) {base:.0f}/s",
            {arm: row[arm] for arm in ("optuna", "adamw", "ranger21", "256 subsets")},
            flush=True,
        )
    draw(record["tasks"])


if __name__ == "__main__":
    main()

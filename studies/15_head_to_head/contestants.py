"""What is fought with: choices of an optimizer as plain data, how each is built, and an Optuna study over them."""

from __future__ import annotations

import inspect
import math
import time
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytorch_optimizer
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from problems import PROBLEMS, Problem
from torch import nn
from torch.optim import Optimizer

from autoranger import Config
from autoranger.search.vectorization import reseed

AUTORANGER, ADAMW, ANY = "autoranger", "AdamW, tuned", "pytorch_optimizer, tuned"
UNTUNED: dict[str, dict[str, Any]] = {
    "AdamW, untouched": {"by": "AdamW", "lr": 1e-3, "weight_decay": 1e-2},
    "schedule-free AdamW, untouched": {"by": "pytorch_optimizer", "name": "schedulefreeadamw", "lr": 2.5e-3},
}
"""Contestants that nobody tunes: the defaults of torch, and those of the authors of schedule-free optimizers."""

SCHEDULES = ("constant", "cosine", "linear")
FINAL_SHARE = 0.2
"""Share of an Optuna study's time in which its best trials train again on other seeds, and the best mean is chosen."""

LEADERS = 5
"""How many do."""

Choice = Mapping[str, Any]


def build(choice: Choice, model: nn.Module, total_steps: int) -> Optimizer:
    """The optimizer of a choice, which steps its own schedule."""
    if choice["by"] == AUTORANGER:
        return Config.from_dict(choice["config"]).build(model, total_steps)  # the model, for the laws of length
    if choice["by"] == "AdamW":
        numbers = {key: choice[key] for key in ("lr", "weight_decay", "betas") if key in choice}
        optimizer: Optimizer = torch.optim.AdamW(model.parameters(), **numbers)
    else:
        kind = pytorch_optimizer.load_optimizer(choice["name"])
        takes = inspect.signature(kind).parameters
        numbers = {key: choice[key] for key in ("lr", "weight_decay") if key in choice and key in takes}
        optimizer = kind(model.parameters(), **numbers)
    if hasattr(optimizer, "train") and hasattr(
        optimizer, "eval"
    ):  # schedule-free ones, which have weights of their own
        model.register_forward_pre_hook(lambda m, _: optimizer.train() if m.training else optimizer.eval())
    warm, shape = choice.get("warmup", 0.0) * total_steps, choice.get("schedule", "constant")
    if warm or shape != "constant":

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / (warm + 1)
            done = min(1.0, (step - warm) / max(1.0, total_steps - warm))
            return {"constant": 1.0, "cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done}[shape]

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


class Run:
    """A trial of one training, as scripts and tasks see it.

    Args:
        choice: the optimizer.
        seed, length: of the training.
        watch: called with the value and step of each report; nothing is reported if None.
    """

    worker = 0

    def __init__(self, choice: Choice, seed: int, length: float, watch: Any = None) -> None:
        self.choice, self.seed, self.length, self._watch = choice, seed, length, watch
        self.watched = watch is not None

    def build(self, model: nn.Module, total_steps: int) -> Optimizer:
        """See `autoranger.Trial`."""
        return build(self.choice, model, total_steps)

    def report(self, value: float, step: int) -> None:
        """See `autoranger.Trial`."""
        if self._watch is not None:
            self._watch(value, step)


def train(problem: str, choice: Choice | None, seed: int, length: float, watch: Any = None) -> tuple[float, float]:
    """The scores on validation and test data of one training; NaN if it fails, or nothing was chosen."""
    if choice is None:
        return math.nan, math.nan
    reseed(torch.device("cpu"), seed)
    with warnings.catch_warnings(action="ignore"):
        try:
            found = PROBLEMS[problem].train(Run(choice, seed, length, watch))
        except optuna.TrialPruned:
            raise
        except Exception:
            return math.nan, math.nan
    return found["valid"], found["test"]


def one(job: tuple[str, Choice, int, float]) -> tuple[float, float]:
    """`train`, in a worker."""
    torch.set_num_threads(1)
    return train(*job)


@cache
def usable() -> list[str]:
    """The optimizers of pytorch_optimizer that train any model in an ordinary loop: not those that want closures, the
    model itself, or second derivatives.
    """
    found = []
    for name in pytorch_optimizer.get_supported_optimizers():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        with warnings.catch_warnings(action="ignore"):
            try:
                optimizer = build({"by": "pytorch_optimizer", "name": name, "lr": 1e-3}, model, 3)
                for _ in range(3):
                    optimizer.zero_grad()
                    model(torch.ones(5, 3)).square().sum().backward()
                    optimizer.step()
            except Exception:
                continue
        if all(p.isfinite().all() for p in model.parameters()):
            found.append(name)
    return found


def asked(trial: optuna.Trial, contestant: str) -> Choice:
    """A choice that a trial suggests."""
    common = {
        "lr": trial.suggest_float("lr", 1e-5, 1.0, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1.0, log=True),
        "schedule": trial.suggest_categorical("schedule", SCHEDULES),
        "warmup": trial.suggest_float("warmup", 0.0, 0.2),
    }
    if contestant == ANY:
        return common | {"by": "pytorch_optimizer", "name": trial.suggest_categorical("name", usable())}
    betas = (
        1 - trial.suggest_float("1 - beta1", 0.01, 0.5, log=True),
        1 - trial.suggest_float("1 - beta2", 1e-4, 0.1, log=True),
    )
    return common | {"by": "AdamW", "betas": betas}


FIRST = {"lr": 1e-3, "weight_decay": 1e-2, "schedule": "cosine", "warmup": 0.05}
"""The first trial, which is what most would begin with."""


def optimize(problem: str, contestant: str, journal: str, end: float, worker: int) -> None:
    """Runs an Optuna study's trials in one of its processes, until a point in time of `time.time`."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name="study",
        storage=JournalStorage(JournalFileBackend(journal)),
        sampler=optuna.samplers.TPESampler(seed=worker, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(),
    )

    def objective(trial: optuna.Trial) -> float:
        choice = asked(trial, contestant)
        trial.set_user_attr("choice", dict(choice))

        def watch(value: float, step: int) -> None:
            trial.report(PROBLEMS[problem].sign * value, step)
            if time.time() > end or trial.should_prune():
                raise optuna.TrialPruned

        valid, _ = train(problem, choice, 0, 1.0, watch)
        return valid

    while time.time() < end:
        study.optimize(objective, n_trials=1, catch=(Exception,))


def tuned(problem: Problem, contestant: str, budget: float, folder: Path, pool: Any) -> dict[str, Any]:
    """The choice of an Optuna study: TPE with its pruner, then other seeds for its leaders."""
    began, journal = time.time(), str(folder / f"{problem.name}-{contestant.split(',')[0]}.log")
    Path(journal).unlink(missing_ok=True)
    study = optuna.create_study(
        study_name="study", storage=JournalStorage(JournalFileBackend(journal)), direction="maximize"
    )
    more = {"1 - beta1": 0.1, "1 - beta2": 1e-3} if contestant == ADAMW else {"name": "adamw"}
    study.enqueue_trial(FIRST | more)
    ends = began + (1 - FINAL_SHARE) * budget, began + budget
    workers = [pool.submit(optimize, problem.name, contestant, journal, ends[0], i) for i in range(2)]
    for worker in workers:
        worker.result()
    done = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE and np.isfinite(t.value or np.nan)]
    if not done:
        return {"choice": None, "seconds": time.time() - began, "why": "no trial ended in time"}
    leaders = sorted(done, key=lambda t: -t.value)[:LEADERS]
    values = {t.number: [t.value] for t in leaders}
    for seed in range(1, 100):
        if time.time() + (time.time() - ends[0]) / seed > ends[1]:
            break
        again = pool.map(one, [(problem.name, t.user_attrs["choice"], seed, 1.0) for t in leaders])
        for t, (valid, _) in zip(leaders, again, strict=True):
            values[t.number].append(valid)
    best = max(leaders, key=lambda t: np.nan_to_num(np.mean(values[t.number]), nan=-np.inf))
    return {
        "choice": best.user_attrs["choice"],
        "seconds": time.time() - began,
        "trainings": len(study.trials),
        "seeds": len(values[best.number]),
    }

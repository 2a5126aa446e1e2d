"""Training functions for the tests of `tune`, which worker processes can import: milliseconds each."""

from __future__ import annotations

import math
import os
import random
import signal
import time

import numpy as np
import torch

STEPS = 8


def stepped(trial, steps=STEPS):
    """The candidate's optimizer, after it has trained one parameter for a while."""
    parameter = torch.nn.Parameter(torch.ones(3))
    count = max(1, round(steps * trial.length))
    optimizer = trial.build([parameter], total_steps=count)
    for t in range(count):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
        trial.report(float(parameter.detach().square().sum()), t)
    return optimizer


def merit(config):
    """What a config is worth: a rate of 0.01 is the best, and so is having `lookahead` off."""
    rate = -abs(math.log10(max(config.lr, 1e-9) / 0.01))
    return rate - ("lookahead" in config.components)


def quick(trial):
    """The merit, with noise that candidates share and a little that they do not."""
    stepped(trial)
    own = random.Random(f"{trial.config.to_dict()} {trial.seed}").gauss(0, 0.01)
    return {"score": merit(trial.config) + 0.5 * float(np.random.normal()) + own, "test": 7.0}


def draws(trial):
    """Random numbers of each kind, added up."""
    stepped(trial)
    return float(torch.rand(1)) + 10 * float(np.random.rand()) + 100 * random.random()


def slow(trial):
    """Takes a moment."""
    time.sleep(0.05)
    return quick(trial)


def awkward(trial):
    """Fails in a way of its own for each seed from 1 on."""
    stepped(trial)
    if trial.seed == 1:
        raise ValueError("no such layer\nsecond line")
    if trial.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if trial.seed == 3:
        time.sleep(60)
    if trial.seed == 4:
        return math.nan
    if trial.seed == 5:
        raise MemoryError
    if trial.seed == 6:
        raise SystemExit(3)
    if trial.seed == 7:
        os._exit(4)
    if trial.seed == 8:
        trial.report(math.inf, 99)
    if trial.seed == 9:
        return None
    return 1.0


AWKWARD = {
    1: "ValueError: no such layer, at trainings.py:",
    2: "its process ended: SIGKILL, as if memory ran out",
    3: "it took longer than 5 s",
    4: "the metric is nan",
    5: "out of memory",
    6: "SystemExit: 3, at trainings.py:",
    7: "its process ended: exit status 4",
    8: "reported inf at step 99",
    9: "TypeError: train returned nothing, but must return a number, or a dict of numbers",
}


def saves(trial):
    """Writes its weights under one name, and fails if another training does so meanwhile."""
    with open("busy", "x"):
        stepped(trial)
        torch.save(trial.seed, "best.pt")
        time.sleep(0.02)
        seed = torch.load("best.pt")
    os.remove("busy")
    assert seed == trial.seed
    return merit(trial.config) + random.Random(trial.seed).random()


def leaves(trial):
    """Writes its weights under one name, as others do."""
    stepped(trial)
    torch.save(trial.seed, "best.pt")
    return merit(trial.config)


def saves_by_worker(trial):
    """Writes its weights under the name of its worker."""
    stepped(trial)
    torch.save(trial.seed, f"best-{trial.worker}.pt")
    time.sleep(0.02)
    assert torch.load(f"best-{trial.worker}.pt") == trial.seed
    return merit(trial.config)


def saves_apart(trial):
    """Writes its weights into a folder of its own, which a killed one cannot remove."""
    stepped(trial)
    torch.save(trial.seed, trial.folder / "best.pt")
    assert [x.name for x in trial.folder.iterdir()] == ["best.pt"]
    if trial.seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    assert torch.load(trial.folder / "best.pt") == trial.seed
    return merit(trial.config) + random.Random(trial.seed).random()

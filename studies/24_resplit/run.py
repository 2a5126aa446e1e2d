"""Do searches with few validation examples find more, and claim less, where each seed divides the data anew?

usage: python studies/24_resplit/run.py [--tasks digits diabetes] [--worlds 6]

In each world some of a task's data are test data that no search sees, drawn at random. A standard search runs once
with one division of the rest into training and validation data ("one"), and once with another for each seed ("each");
without a budget, so that the machine's speed does not matter. What it exports, and all finalists, are scored on the
world's test data by the fresh seeds of the verdict. Adds to record.json, and prints the tables of the README.
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from autoranger.search.study import search
from autoranger.search.tasks import create
from autoranger.search.tasks.task import Task
from autoranger.search.verdict.statistics import paired_difference

RECORD = Path(__file__).with_name("record.json")
WAYS = {"one": False, "each": True}


def world(task: Task, number: int) -> Task:
    """The task with another random division of its data."""
    parts = task.data()
    sizes = [len(parts[name][1]) for name in ("train", "valid", "test")]
    inputs, targets = (torch.cat([parts[name][i] for name in ("train", "valid", "test")]) for i in range(2))
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(number)).split(sizes)
    data = {name: (inputs[own], targets[own]) for name, own in zip(("train", "valid", "test"), order, strict=True)}
    task = copy.copy(task)
    task.data = lambda: data  # type: ignore[method-assign]
    return task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=["digits", "diabetes"])
    parser.add_argument("--worlds", type=int, default=6)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for number in range(asked.worlds):
        for name in asked.tasks:
            for way, resplit in WAYS.items():
                record = read()
                if str(number) in record.get(name, {}).get(way, {}):
                    continue
                task = world(create(name, "cpu", None), number)
                task.resplit = resplit
                found = told(task)
                record.setdefault(name, {}).setdefault(way, {})[str(number)] = found
                RECORD.write_text(json.dumps(record, indent=1) + "\n")
                print(name, way, number, f"{found['seconds']:.0f} s, test {found['test']:.4f}", flush=True)
    print(summary(read()))


def told(task: Task) -> dict[str, Any]:
    """What a search exports and claims, and what holds on the test data."""
    outcome = search(task, optuna.storages.InMemoryStorage(), "study")
    default = next(f for f in outcome.finalists if "default" in f.roles)
    claims = [
        {"claimed": f.against_default.effect, "low": f.against_default.low, "high": f.against_default.high}
        | {"test": f.test - default.test}
        for f in outcome.finalists
        if f is not default and f.against_default is not None
    ]
    return {
        "seconds": round(outcome.seconds),
        "components": list(outcome.exported.components),
        "valid": outcome.exported.valid,
        "test": outcome.exported.test,
        "claims": claims,
    }


def read() -> dict[str, Any]:
    """The record."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def summary(record: dict[str, Any]) -> str:
    """The tables of the README."""
    head = "| task | | one division | one for each seed | difference (95 %) | worlds |"
    lines = [head, "|---" * 6 + "|"]
    held = ["| task | divisions | claims | right in direction | within the interval |", "|---" * 5 + "|"]
    for name, ways in record.items():
        numbers = sorted(set(ways["one"]) & set(ways["each"]), key=int)
        for what, of in (("what is exported scores", exported), ("claims are off by", off)):
            one, each = (np.array([of(ways[way][number]) for number in numbers]) for way in WAYS)
            d = paired_difference(each, one)
            lines.append(
                f"| {name} | {what} | {one.mean():.4f} | {each.mean():.4f} | "
                f"{d.effect:+.4f} [{d.low:+.4f}, {d.high:+.4f}] | {len(numbers)} |"
            )
        for way in WAYS:
            every = [claim for number in numbers for claim in ways[way][number]["claims"]]
            claimed, low, high, truth = (
                np.array([c[key] for c in every]) for key in ("claimed", "low", "high", "test")
            )
            sure = (low > 0) | (high < 0)
            held.append(
                f"| {name} | {way} | {len(every)} | "
                f"{(claimed[sure] * truth[sure] > 0).mean():.0%} of {sure.sum()} sure ones | "
                f"{((low <= truth) & (truth <= high)).mean():.0%} |"
            )
    return "\n".join([*lines, "", *held])


def exported(found: dict[str, Any]) -> float:
    """The score on test data of what a search exports."""
    return float(found["test"])


def off(found: dict[str, Any]) -> float:
    """How far the claimed differences to full Ranger21 are from those on test data, on average."""
    return float(np.mean([abs(claim["claimed"] - claim["test"]) for claim in found["claims"]]))


if __name__ == "__main__":
    main()

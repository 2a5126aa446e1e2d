"""At equal time, is a tuned optimizer of autoranger better than a tuned AdamW, or than any of pytorch_optimizer?

usage: python studies/15_head_to_head/run.py [--budget 60] [--judge 90] [--seeds 8] [--problems digits rows …]
                                             [--data-dir FOLDER] [--record record.json]

Each contestant gets `--budget` seconds and two processes or threads for each problem, and the two that nobody tunes
get none. What each has chosen then trains on seeds that nobody has seen, at the length of the search and at full
length, one model after another in an ordinary loop, for `--judge` seconds (four seeds at least). All is written to the
record as soon as it is known, and what is in it is not done again. At the end, and with `--summary` at once, it prints
the table of the README, and `--figure FILE` draws it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from contestants import ADAMW, ANY, AUTORANGER, UNTUNED, one, tuned, usable
from problems import DATA, PROBLEMS, Problem, data_of, script, task_of

from autoranger.components.core.errors import ConfigError, DataError, SearchError
from autoranger.search import space
from autoranger.search.study import search
from autoranger.search.tune.tune import tune_in
from autoranger.search.verdict.statistics import paired_difference

HERE = Path(__file__).parent
LEDGER = HERE.parent / "21_ledger"
TUNED = (AUTORANGER, ADAMW, ANY)
ALL = (*TUNED, *UNTUNED)
FIRST_SEED, LEAST_SEEDS = 50_000_000, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of each contestant for each problem")
    parser.add_argument("--judge", type=float, default=90.0, help="seconds of the judging of each problem")
    parser.add_argument("--seeds", type=int, default=48, help="most seeds of the judging")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--data-dir", help="folder of data files")
    parser.add_argument("--record", type=Path, default=HERE / "record.json")
    parser.add_argument("--summary", action="store_true", help="only print the table of a record")
    parser.add_argument("--figure", type=Path, help="draw the record to this file")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if asked.data_dir:
        os.environ[DATA] = asked.data_dir
    record = json.loads(asked.record.read_text()) if asked.record.exists() else {}
    if not asked.summary:
        run(asked, record)
    print(summary(record))
    if asked.figure:
        draw(record, asked.figure)


def run(asked: argparse.Namespace, record: dict[str, Any]) -> None:
    """Does what is not in the record yet."""
    known = {
        "budget": asked.budget,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
    }
    if record.setdefault("asked", known) != known:
        raise SystemExit(f"the record was made with {record['asked']}, not {known}; name another --record")
    torch.set_num_threads(2)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool, tempfile.TemporaryDirectory() as folder:
        list(pool.map(warm, range(2)))
        for name in asked.problems:
            try:
                if PROBLEMS[name].task:
                    data_of(name)
            except DataError as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            mine = record.setdefault("problems", {}).setdefault(name, {"choices": {}, "judged": {}})
            for contestant in TUNED:
                if contestant not in mine["choices"]:
                    mine["choices"][contestant] = chosen(PROBLEMS[name], contestant, asked.budget, Path(folder), pool)
                    write(asked.record, record)
                    said = {key: value for key, value in mine["choices"][contestant].items() if key != "choice"}
                    print(f"{name}: {contestant}: {said}", flush=True)
            mine["choices"] |= {name: {"choice": choice} for name, choice in UNTUNED.items()}
            end = time.time() + asked.judge
            for length in (1, PROBLEMS[name].longer):
                half = end - (asked.judge * 0.7 if length == 1 else 0.0)
                judge(PROBLEMS[name], mine, length, asked.seeds, half, pool, lambda: write(asked.record, record))
            print(f"{name}: judged", flush=True)


def warm(_: int) -> int:
    """Imports what workers need, before anybody's time begins."""
    return len(usable())


def chosen(problem: Problem, contestant: str, budget: float, folder: Path, pool: Any) -> dict[str, Any]:
    """What a contestant chooses within its time. Nobody knows the task from before: see `stranger`."""
    if contestant != AUTORANGER:
        return tuned(problem, contestant, budget, folder, pool)
    began, storage = time.time(), optuna.storages.InMemoryStorage()
    try:
        if problem.task:
            with stranger(problem.name):
                outcome = search(task_of(problem.name), storage, "study", budget=budget)
        else:
            direction = "maximize" if problem.sign > 0 else "minimize"
            outcome = tune_in(script(problem.name), storage, "study", budget=budget, workers=2, direction=direction)
    except (ConfigError, SearchError) as error:
        return {"choice": None, "seconds": time.time() - began, "why": str(error)}
    evidence = outcome.evidence.to_dict()
    return {
        "choice": {"by": AUTORANGER, "config": outcome.config.to_dict()},
        "seconds": time.time() - began,
        "trainings": len(optuna.load_study(study_name="study", storage=storage).trials),
        "verdict": evidence.get("verdict"),
    }


@contextmanager
def stranger(task: str) -> Iterator[None]:
    """Within it, searches begin with nothing that was found on a shipped task, as with one that nobody has seen."""
    from page import sets_of

    record = {name: part for name, part in json.loads((LEDGER / "record.json").read_text()).items() if name != task}
    of_others = replace(space.ledger(), sets=tuple(map(tuple, sets_of(record))))
    before = space.ledger, space.recorded
    space.ledger, space.recorded = lambda: of_others, tuple  # type: ignore[assignment]
    try:
        yield
    finally:
        space.ledger, space.recorded = before  # type: ignore[misc]


def judge(problem: Problem, mine: dict[str, Any], length: int, seeds: int, end: float, pool: Any, write: Any) -> None:
    """Trains all choices on further seeds until a point in time, seed by seed, so that all have the same."""
    judged = mine["judged"].setdefault(str(length), {name: {} for name in ALL})
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        left = [name for name in ALL if str(seed) not in judged[name]]
        if seed >= FIRST_SEED + LEAST_SEEDS and time.time() > end:
            return
        jobs = [(problem.name, mine["choices"][name]["choice"], seed, float(length)) for name in left]
        for name, scores in zip(left, pool.map(one, jobs), strict=True):
            judged[name][str(seed)] = [None if np.isnan(x) else x for x in scores]
        write()


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes the record, whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(record, indent=1) + "\n")
    new.replace(path)


def differences(record: dict[str, Any]) -> list[tuple[str, int, str, float, float, Any]]:
    """For each problem, length and contestant the mean test scores, and how much better autoranger's is."""
    rows = []
    for problem, mine in record.get("problems", {}).items():
        for length, judged in mine["judged"].items():
            seeds = sorted(set.intersection(*(set(judged[name]) for name in ALL)))
            values = {
                name: np.array([np.nan if judged[name][seed][1] is None else judged[name][seed][1] for seed in seeds])
                for name in ALL
            }
            for name in ALL[1:]:
                both = all(mine["choices"].get(one, {}).get("choice") for one in (AUTORANGER, name))
                if both and seeds:
                    ours, theirs = values[AUTORANGER], values[name]
                    paired = paired_difference(ours, theirs, comparisons=len(ALL) - 1)
                    rows.append((problem, int(length), name, np.nanmean(ours), np.nanmean(theirs), paired))
    return rows


def summary(record: dict[str, Any]) -> str:
    """The table of the README."""
    lines = [
        "| problem | length | against | autoranger | theirs | difference (95 %) | seeds | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for problem, mine in record.get("problems", {}).items():
        for name, chosen in mine["choices"].items():
            if not chosen["choice"]:
                lines.append(f"| {problem} | | {name} had nothing to recommend | | | | | |")
    for problem, length, name, ours, theirs, d in differences(record):
        word = "better" if d.low > 0 else "worse" if d.high < 0 else ""
        lines.append(
            f"| {problem} | {length}× | {name} | {ours:.4f} | {theirs:.4f} | "
            f"{d.effect:+.4f} [{d.low:+.4f}, {d.high:+.4f}] | {d.seeds} | {word} |"
        )
    return "\n".join(lines)


def draw(record: dict[str, Any], path: Path) -> None:
    """A figure: differences, in half-widths of the interval against the tuned AdamW, so that problems share an axis."""
    import matplotlib.pyplot as plt

    rows = differences(record)
    lengths = sorted({(problem, length) for problem, length, *_ in rows})
    figure, axes = plt.subplots(1, len(ALL) - 1, figsize=(3.2 * (len(ALL) - 1), 0.32 * len(lengths) + 1.4), sharey=True)
    for axis, name in zip(axes, ALL[1:], strict=True):
        for problem, length, other, _, theirs, d in rows:
            if other != name:
                continue
            y, scale = lengths.index((problem, length)), max(abs(theirs), 1e-9) / 100
            colour = "tab:green" if d.low > 0 else "tab:red" if d.high < 0 else "tab:gray"
            axis.plot([d.low / scale, d.high / scale], [y, y], color=colour)
            axis.plot(d.effect / scale, y, "o", color=colour)
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_title(f"autoranger − {name}", fontsize=8)
        axis.set_xlabel("% of their score", fontsize=8)
    axes[0].set_yticks(range(len(lengths)), [f"{problem} {length}×" for problem, length in lengths])
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(LEDGER)]
    main()

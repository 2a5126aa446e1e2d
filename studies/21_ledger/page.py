"""The ledger for readers: a table, a figure, and the file that reports compare with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import tomli_w

from autoranger import Config
from autoranger.search.race.baselines import COSINE, PRESETS
from autoranger.search.space import compatible

Record = Mapping[str, Any]

LEAST = 0.1
"""Smallest effect, in standard deviations between seeds, that reports speak of."""

MOST = 3.0
"""Effect, in standard deviations between seeds, whose colour is the strongest."""


def names_of(record: Record) -> list[str]:
    """Every component of the record, the best first: by the mean over tasks of its effect in standard deviations."""
    names = dict.fromkeys(name for found in record.values() for name in found["alone"])
    return sorted(names, key=lambda name: -float(np.mean([size(found, name) for found in record.values()])))


def size(found: Mapping[str, Any], name: str) -> float:
    """An effect in standard deviations of the base between seeds, no more than `MOST` of them."""
    effect = found["alone"].get(name, {"effect": 0.0})["effect"] / found["base"]["sd"]
    return float(np.clip(effect, -MOST, MOST))


def sure(entry: Mapping[str, float]) -> bool:
    """Whether an effect's interval leaves out 0."""
    return bool(entry["low"] > 0 or entry["high"] < 0)


def table(record: Record) -> str:
    """A table in Markdown: what each component adds to the base on each task; in bold where the interval is off 0."""
    lines = ["| | " + " | ".join(record) + " |", "|---" * (1 + len(record)) + "|"]
    for name in names_of(record):
        cells = []
        for found in record.values():
            entry = found["alone"].get(name)
            text = "" if entry is None else f"{entry['effect']:+.4f}"
            cells.append(f"**{text}**" if entry and sure(entry) else text)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(record: Record, path: Path) -> None:
    """A figure: one row for each component, one column for each task."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "ledger", "font.size": 9}
    import matplotlib.pyplot as plt

    names = names_of(record)
    figure, axes = plt.subplots(figsize=(2.6 + 1.25 * len(record), 0.24 * len(names) + 1.3), layout="constrained")
    sizes = np.array([[size(found, name) for found in record.values()] for name in names])
    image = axes.imshow(sizes, cmap="RdBu", vmin=-MOST, vmax=MOST, aspect="auto")
    for row, name in enumerate(names):
        for column, found in enumerate(record.values()):
            entry = found["alone"].get(name)
            if entry is not None:
                strong = sure(entry)
                colour = "white" if abs(sizes[row, column]) > 0.7 * MOST else "black" if strong else "0.3"
                weight = "bold" if strong else "normal"
                text = f"{entry['effect']:+.4f}"
                axes.text(column, row, text, ha="center", va="center", color=colour, weight=weight, size=8)
    axes.set_xticks(
        range(len(record)), [f"{task}\n{fill(found['metric'], 14)}" for task, found in record.items()], size=8
    )
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.5, label="standard deviations between seeds")
    bar.outline.set_visible(False)  # type: ignore[operator]
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write_ledger(record: Record, path: Path) -> None:
    """What reports compare with: the tasks on which each component helps AdamW with warmup and cosine, or hurts it.

    And what searches begin with: `sets_of`.
    """
    found: dict[str, Any] = {"tasks": list(record), "sets": sets_of(record), "helps": {}, "hurts": {}}
    for name in sorted(names_of(record)):
        for verdict, sign in (("helps", 1), ("hurts", -1)):
            entries = {task: part["alone"][name] for task, part in record.items() if name in part["alone"]}
            least = {task: LEAST * record[task]["base"]["sd"] for task in entries}
            where = [task for task, e in entries.items() if sure(e) and sign * e["effect"] >= least[task]]
            if where and " " not in name:
                found[verdict][name] = where
    about = (
        "# On which tasks a component helps or hurts AdamW with warmup and cosine, and what a search begins\n"
        "# with; made by studies/21_ledger/run.py.\n"
    )
    path.write_text(about + tomli_w.dumps(found), encoding="utf-8")


def sets_of(record: Record) -> list[list[str]]:
    """What helps on every task, and what adds to the gain of each best set, with those of the base that fit to it."""
    everywhere = [name for name in names_of(record) if all(helps(part, name) for part in record.values())]
    useful = [
        [name for name, share in best["shapley"].items() if share["effect"] > 0]
        for best in (part["best"] for part in record.values())
        if best["gain"]["low"] > 0
    ]
    base = Config.preset(PRESETS[COSINE]).components
    found = [compatible([*names, *base]) for names in (everywhere, *useful)]
    return [list(names) for names in dict.fromkeys(map(tuple, found))]


def helps(part: Record, name: str) -> bool:
    """Whether a component surely helps on a task."""
    entry = part["alone"].get(name)
    return entry is not None and sure(entry) and entry["effect"] > 0

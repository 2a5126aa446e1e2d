"""Draws figure.svg from record.json: the cross entropy after the training at each learning rate. Needs matplotlib."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def main() -> None:
    runs = [run for run in json.loads((HERE / "record.json").read_text())["runs"] if run["stem stride"] == 2]
    plt.rcParams["svg.hashsalt"] = "autoranger"  # the same file every time
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, label, color in (("adamw", "AdamW", "tab:orange"), ("ranger21", "Ranger21", "tab:blue")):
        points: dict[float, list[float]] = {}
        for run in runs:
            if run["optimizer"] == name:
                last = run["curve"][-1]
                points.setdefault(run["lr"], []).append(2.4 if last is None else min(last, 2.4))
        for lr, values in points.items():
            axes.plot([lr] * len(values), values, "o", color=color, markersize=4, alpha=0.6)
        rates = sorted(points)
        means = [sum(points[lr]) / len(points[lr]) for lr in rates]
        axes.plot(rates, means, color=color, label=label)
    axes.axhline(math.log(10), color="gray", linestyle=":", label="uniform prediction, ln 10")
    axes.set(xscale="log", xlabel="learning rate", ylabel="cross entropy (2.4 and above: diverged)", ylim=(1.85, 2.42))
    axes.legend(loc="lower left")
    figure.savefig(HERE / "figure.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()

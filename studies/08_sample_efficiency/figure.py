"""The figure and the table of the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

RULES = {"best_trial": "best trial", "recommended": "recommended", "modelled": "by the model of bayes"}
LINES = {"best_trial": "-", "recommended": "--", "modelled": ":"}


def rows(record: dict[str, Any]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """For each sampler and rule its results by problem."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for problem, samplers in record.items():
        for name, result in samplers.items():
            for rule in RULES:
                if rule in result:
                    found.setdefault((name, rule), {})[problem] = result[rule]
    return found


def markdown(record: dict[str, Any], budgets: tuple[int, ...]) -> str:
    """A table with the median regrets after every budget."""
    lines = [
        f"Median regret in points after {', '.join(map(str, budgets))} evaluations.\n",
        "| sampler | recommends | " + " | ".join(record) + " |",
        "|---" * (len(record) + 2) + "|",
    ]
    for (name, rule), results in rows(record).items():
        cells = [
            " ".join(f"{x:.2f}" for x in results[problem]["median"]) if problem in results else "–"
            for problem in record
        ]
        lines.append(f"| {name} | {RULES[rule]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(record: dict[str, Any], budgets: tuple[int, ...], path: Path) -> None:
    """A panel for each problem: median regret against evaluations."""
    import matplotlib.pyplot as plt

    columns = min(3, len(record))
    lines = -(-len(record) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(3.6 * columns, 3.5 * lines), squeeze=False, sharex=True)
    names = sorted({name for samplers in record.values() for name in samplers})
    for panel, (problem, samplers) in zip(panels.flat, record.items(), strict=False):
        for name, result in samplers.items():
            for rule in RULES:
                if rule in result:
                    own = rule != "best_trial"
                    color = f"C{names.index(name)}"
                    style = {
                        "linestyle": {"best_trial": "-", "recommended": "--", "modelled": ":"}[rule],
                        "linewidth": 2.5 if name == "bayes" else 1.2,
                    }
                    label = f"{name}, {RULES[rule]}" if own else name
                    panel.plot(budgets, result[rule]["median"], color=color, marker=".", label=label, **style)
        panel.set(title=problem, xscale="log", xticks=budgets, xticklabels=budgets)
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
    for panel in panels.flat[len(record) :]:
        panel.set_axis_off()
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, fontsize=8)
    figure.supxlabel("evaluations", y=0.16)
    figure.supylabel("median simple regret, points")
    figure.tight_layout(rect=(0.02, 0.17, 1, 1))
    figure.savefig(path, dpi=110)

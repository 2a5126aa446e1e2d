"""What a search found, and what a config is, as text for people and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table

from autoranger.bench import Bench
from autoranger.components.core.component import Value, registry
from autoranger.components.core.config import Config
from autoranger.components.core.registry import origin
from autoranger.display import brief
from autoranger.findings import Findings, Row
from autoranger.search.study import Outcome
from autoranger.search.tasks.task import Task
from autoranger.search.verdict.comparison import Comparison
from autoranger.search.verdict.verdict import Difference
from autoranger.wording import (
    READING,
    about,
    contribution_cells,
    finalist_cells,
    interval,
    length,
    note,
    pair_cells,
    source,
    spent,
    verdict,
)

STRONGEST = 5
"""Pairs of components that are printed."""


def outcome_dict(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data."""
    return {
        "config": outcome.config.to_dict(),
        "default_kept": outcome.default_kept,
        "finalists": [asdict(f) | {"config": f.config.to_dict()} for f in outcome.finalists],
        "evidence": outcome.evidence,
        "seconds": round(outcome.seconds, 1),
        "candidate_steps": outcome.work,
    }


def print_outcome(console: Console, outcome: Outcome, path: Path, report: str) -> None:
    """The final table, the verdict in a sentence, how to use the file, and what tells more."""
    exported = outcome.config.to_dict()
    rows = [Row.of(data, exported) for data in outcome_dict(outcome)["finalists"]]
    evidence = outcome.evidence
    work = f"{outcome.work:,} candidate-steps in {outcome.seconds:.0f} s."
    if compared := note(rows, evidence):
        print_finalists(console, rows, evidence)
        console.print()
    console.print(f"{compared} {work}".strip(), highlight=False)
    print_verdict(console, verdict(next((row for row in rows if row.exported), None), evidence))
    console.print(f"\nWritten to [bold]{escape(str(path))}[/]. In your training:\n", highlight=False)
    for line in ("import autoranger", *imports(outcome.config)):
        print_code(console, f"    {line}")
    print_code(console, f'    optimizer = autoranger.load("{path}").{build_call(outcome.config)}')
    if compared:
        console.print("\nWhat each component contributes:\n", highlight=False)
        print_code(console, f"    {report}")


def print_finalists(console: Console, rows: Sequence[Row], evidence: Mapping[str, Any]) -> None:
    """The finalists, best first: what they are and reach, and how they compare."""
    cells = list(finalist_cells(rows))
    numbers = [Column(name, no_wrap=True) for name in ("", "lr", f"valid {evidence['metric']}", "test")]
    results = Table(*numbers, Column("optimizer", overflow="fold"), box=None, pad_edge=False)
    costs = [str(evidence.get("cost", "cost"))] * any(row.cost is not None for row in rows)
    against = Table("", "against ranger21", "p", "against adamw", *costs, box=None, pad_edge=False)
    for row, (place, name, lr, valid, test, *differences) in zip(rows, cells, strict=True):
        style = "bold green" if row.exported else ""
        results.add_row(place.rjust(3), lr, valid, test, escape(name), style=style)
        against.add_row(place.rjust(3), *differences[: 3 + len(costs)], style=style)
    console.print(results)
    console.print()
    console.print(against)


def print_verdict(console: Console, words: str) -> None:
    """The verdict in a sentence."""
    console.print(escape(words), style="bold", highlight=False)


def print_findings(console: Console, findings: Findings) -> None:
    """What a study says: the verdict, the finalists, the cost, and what each component contributes."""
    console.print(escape(about(findings)), highlight=False, soft_wrap=True)
    print_verdict(console, verdict(findings.exported, findings.evidence, findings.failure))
    if compared := note(findings.rows, findings.evidence):
        console.print()
        print_finalists(console, findings.rows, findings.evidence)
        console.print(f"\n{compared}", highlight=False)
    console.print(escape(f"\n{spent(findings)}\n\n{source(findings)}"), highlight=False)
    if findings.attribution is None:
        return
    table = Table("component", "Shapley value", "main effect", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, *effects in contribution_cells(findings):
        table.add_row(f"[bold]{escape(name)}[/]", *map(escape, effects))
    console.print()
    console.print(table)
    pairs = Table("strongest pairs", "interaction", box=None, pad_edge=False)
    for pair, effect in islice(pair_cells(findings), STRONGEST):
        pairs.add_row(escape(pair), escape(effect))
    if pairs.rows:
        console.print()
        console.print(pairs)
    console.print(f"\n[dim]{READING}[/]", highlight=False)


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain data."""
    sides = [asdict(s) | {"config": s.config.to_dict(), "curve": s.curve.tolist()} for s in comparison.sides]
    pairs = [{"a": a, "b": b} | asdict(d) for (a, b), d in comparison.differences.items()]
    return {"steps": comparison.steps, "sides": sides, "differences": pairs}


def print_comparison(console: Console, comparison: Comparison, task: Task) -> None:
    """The sides with their learning curves, and the difference of each pair."""
    points = len(comparison.sides[0].curve)
    shown = [i for i in range(points) if (i + 1) % 2 == 0]
    at = [f"{round(comparison.steps * (i + 1) / points)}" for i in shown]
    metric = task.metric_name
    table = Table("config", "lr", *at, f"test {metric}", box=None, pad_edge=False, title_justify="left")
    for side in comparison.sides:
        curve = [f"{side.curve[i]:.4f}" for i in shown]
        diverged = f" ({side.diverged} diverged)" if side.diverged else ""
        table.add_row(f"[bold]{escape(side.name)}[/]", f"{side.config.lr:g}", *curve, f"{side.test:.4f}{diverged}")
    console.print(f"valid {metric} after so many steps, mean over seeds", highlight=False)
    console.print(table)
    pairs = Table("pair", "difference at the end", "p", "", box=None, pad_edge=False)
    for (a, b), difference in comparison.differences.items():
        certain = difference.low > 0 or difference.high < 0
        words = "[green]better[/]" if certain else "a tie, as far as these seeds can tell"
        pairs.add_row(f"{escape(a)} − {escape(b)}", interval(difference), f"{difference.p:.2g}", words)
    seeds = next(iter(comparison.differences.values())).seeds
    console.print(
        f"\n{seeds} common seeds; the intervals and p-values hold for all pairs together, at 95%", highlight=False
    )
    console.print(pairs)


def print_code(console: Console, line: str) -> None:
    """A line to be copied: neither wrapped nor interpreted."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def build_call(config: Config) -> str:
    """How the optimizer of a config is built."""
    total = ", total_steps=epochs * len(loader)" if config.needs_total_steps else ""
    return f"build(model.parameters(){total})"


def imports(config: Config) -> list[str]:
    """What a program has to import, too, before it loads a config: files that define components."""
    places = {name: origin(registry[name]) for name in config.components}
    return [f"import {Path(place).stem}  # has {name}" for name, place in places.items() if place.endswith(".py")]


def print_config(console: Console, name: str, config: Config, evidence: dict[str, Any]) -> None:
    """A config explained: the numbers, each component, the evidence, and how to use it."""
    console.print(f"[bold]{escape(name)}[/]: {brief(config)}", highlight=False)
    beta1, beta2 = config.betas
    console.print(
        f"lr {config.lr:g}, betas ({beta1:g}, {beta2:g}), eps {config.eps:g}, weight decay {config.weight_decay:g}\n",
        highlight=False,
    )
    for key, settings in config.components.items():
        print_component(console, key, settings)
    off = [key for key in registry if key not in config.components]
    console.print(f"off: {', '.join(off) or 'nothing'}\n", highlight=False)
    if evidence:
        print_evidence(console, evidence)
    for line in imports(config):
        print_code(console, line)
    print_code(console, f'optimizer = autoranger.load("{name}").{build_call(config)}')


def print_component(console: Console, name: str, settings: Mapping[str, Value]) -> None:
    """A component in two or three lines: what it is, what it does, and its hyperparameters."""
    cls = registry[name]
    values = ", ".join(f"{key}={value}" for key, value in settings.items())
    title = f"[bold]{name}[/] [dim]{cls.stage.name.lower()}, {cls.source}[/]"
    console.print(title + (f"  {escape(values)}" if values else ""), highlight=False)
    console.print(Padding(escape(cls.summary()), (0, 0, 0, 4)))


def print_evidence(console: Console, evidence: dict[str, Any]) -> None:
    """Where a config comes from; an unfamiliar evidence table is printed as it is."""
    try:
        text = f"searched on {evidence['task']}, seed {evidence['seed']}: {evidence['verdict']}\n"
        if evidence["comparisons"]:
            pairs = {"ranger21": "against_default", "adamw": "against_adamw"}
            gains = {other: Difference(**evidence[key]) for other, key in pairs.items()}
            text += f"{evidence['metric']}: {evidence['valid']:.4f} valid, {evidence['test']:.4f} test\n"
            for other, gain in gains.items():
                text += (
                    f"against {other}: {interval(gain)}, trainings of {length(evidence)}, {gain.seeds} fresh seeds\n"
                )
            text += f"{evidence['confidence']:.0%} intervals that hold for all {evidence['comparisons']} comparisons\n"
    except (KeyError, TypeError, ValueError):
        text = f"evidence: {evidence}\n"
    console.print(escape(text), highlight=False)


def print_bench(console: Console, bench: Bench) -> None:
    """The table of a measurement, fastest first, and what it was made on."""
    numbers = (
        Column(name, justify="right", no_wrap=True) for name in ("ms", "quartiles", "× fused", "first s", "state")
    )
    table = Table(Column("optimizer", no_wrap=True), *numbers, box=None, pad_edge=False)
    for t in sorted(bench.timings, key=lambda t: t.ratio):
        times = f"{t.median * 1e3:.3g}", f"{t.low * 1e3:.3g}–{t.high * 1e3:.3g}"
        row = (t.name, *times, f"{t.ratio:.2f}", f"{t.first:.2f}", f"{t.state:.1f}")
        table.add_row(*(escape(cell) for cell in row), style="bold" if t.name == "ranger21" else "")
    console.print(table, highlight=False)
    about = bench.machine
    console.print(
        f"\n{bench.model}: {bench.parameters:,} parameters in {bench.tensors} tensors; medians of {bench.rounds} "
        f"rounds; {escape(about['device'])}, {about['threads']} threads, torch {about['versions']['torch']}, "
        f"{about['date']}."
        "\n+: AdamW and that component. First: the first step, which compiles. State: numbers kept for each parameter.",
        highlight=False,
        soft_wrap=True,
    )
    for name, why in bench.skipped.items():
        console.print(f"left out: {escape(name)} ({escape(why)})", highlight=False, soft_wrap=True)

"""Prints configs, comparisons and step times on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table

from autoranger.bench import Bench
from autoranger.components.core.component import registry
from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.components.core.hyper import Setting
from autoranger.components.core.reference import extra_state
from autoranger.components.core.registry import origin
from autoranger.components.optimizer.evaluation import tells_apart
from autoranger.export import build_call
from autoranger.report.sentences import interval, outlook, training_length
from autoranger.search.race.baselines import called
from autoranger.search.space import in_words
from autoranger.search.tasks.task import Task
from autoranger.search.verdict.comparison import HeadToHead
from autoranger.search.verdict.outcome import Evidence


def comparison_dict(comparison: HeadToHead) -> dict[str, Any]:
    """A comparison as plain data."""
    sides = [asdict(s) | {"config": s.config.to_dict(), "curve": s.curve.tolist()} for s in comparison.sides]
    pairs = [{"a": a, "b": b} | asdict(d) for (a, b), d in comparison.differences.items()]
    return {"steps": comparison.steps, "sides": sides, "differences": pairs}


def print_comparison(console: Console, comparison: HeadToHead, task: Task) -> None:
    """Prints the configs with their learning curves, and the difference of each pair."""
    points = len(comparison.sides[0].curve)
    shown = [i for i in range(points) if (i + 1) % 2 == 0]
    at = [f"{round(comparison.steps * (i + 1) / points)}" for i in shown]
    metric = task.score_name
    name = Column("config", overflow="fold", min_width=8)
    table = Table(name, *(Column(n, no_wrap=True) for n in ("lr", *at, "test")), box=None, pad_edge=False)
    for side in comparison.sides:
        curve = [f"{side.curve[i]:.4f}" for i in shown]
        diverged = f" ({side.diverged} diverged)" if side.diverged else ""
        table.add_row(f"[bold]{escape(side.name)}[/]", f"{side.config.lr:g}", *curve, f"{side.test:.4f}{diverged}")
    console.print(f"valid {metric} after so many steps, and test {metric}; means over seeds", highlight=False)
    console.print(table)
    numbers = [Column(n, no_wrap=True) for n in ("difference at the end", "p", "")]
    pairs = Table(Column("pair", overflow="fold", min_width=12), *numbers, box=None, pad_edge=False)
    for (a, b), difference in comparison.differences.items():
        words = "[green]better[/]" if difference.low > 0 else "[red]worse[/]" if difference.high < 0 else "a tie"
        pairs.add_row(f"{escape(a)} − {escape(b)}", interval(difference), f"{difference.p:.2g}", words)
    seeds = next(iter(comparison.differences.values())).seeds
    console.print(
        f"\n{seeds} common seeds; the intervals and p-values hold for all pairs together, at 95%. A tie: as far as "
        "these seeds can tell.",
        highlight=False,
    )
    console.print(pairs)


def print_config(console: Console, name: str, config: Config, evidence: Mapping[str, Any]) -> None:
    """Explains a config: its numbers, each component, the evidence, and how to use it."""
    console.print(f"[bold]{escape(name)}[/]: {in_words(config.components)}", highlight=False)
    beta1, beta2 = config.betas
    console.print(
        f"lr {config.lr:g}, betas ({beta1:g}, {beta2:g}), eps {config.eps:g}, weight decay {config.weight_decay:g}\n",
        highlight=False,
    )
    for key, settings in config.components.items():
        print_component(console, key, settings)
    console.print()
    if evidence:
        print_evidence(console, evidence)
    for line in recipe(config, name):
        print_code(console, line)


def recipe(config: Config, path: str) -> list[str]:
    """The lines with which a program makes the optimizer of a config file, and evaluates what it has trained."""
    apart = "with optimizer.evaluation():  # validate and save in here, with the weights that are meant for it"
    call = build_call(timed=bool(config.needs_total_steps), proxy=config.proxy)
    load = f'optimizer = autoranger.load("{path}").{call}'
    return [*imports(config), load, *([apart, "    ..."] if tells_apart(config) else [])]


def imports(config: Config) -> list[str]:
    """What a program has to import before it loads a config: the files that define its components."""
    places = {name: origin(registry[name]) for name in config.components}
    return [f"import {Path(place).stem}  # has {name}" for name, place in places.items() if place.endswith(".py")]


def print_component(console: Console, name: str, settings: Mapping[str, Setting]) -> None:
    """Prints a component in two or three lines: name, stage, source, hyperparameters, and what it does."""
    cls = registry[name]
    values = ", ".join(f"{key}={value}" for key, value in settings.items())
    state = f", state {extra}" if (extra := extra_state(cls)) else ""
    title = f"[bold]{name}[/] [dim]{cls.stage.name.lower()}, {cls.source}{state}[/]"
    console.print(title + (f"  {escape(values)}" if values else ""), highlight=False)
    console.print(Padding(escape(cls.summary()), (0, 0, 0, 4)))


def print_evidence(console: Console, table: object) -> None:
    """Prints the evidence in a config file, or that it is not this version's."""
    try:
        evidence = Evidence.read(table)
    except ConfigError as error:
        console.print(escape(f"The file's evidence is not of this version's search: {error}\n"), highlight=False)
        return
    settings, compared = evidence.settings, evidence.comparison
    text = f"searched on {settings.task}, seed {settings.seed}: {evidence.verdict}\n"
    if compared is not None:
        text += f"{settings.metric}: {compared.valid:.4f} valid, {compared.test:.4f} test\n"
        gains = {"ranger21": compared.against_default, "adamw": compared.against_adamw}
        gains[f"the best baseline, {called(compared.rival)}"] = compared.against_best
        for other, gain in gains.items():
            trained = f"trainings of {training_length(evidence)}, {gain.seeds} fresh seeds"
            text += f"against {other}: {interval(gain)}, {trained}\n"
        text += f"{compared.confidence:.0%} intervals that hold for all {compared.comparisons} finalists together\n"
        text += f"{outlook(evidence)}\n"
    console.print(escape(text), highlight=False)


def print_bench(console: Console, bench: Bench) -> None:
    """Prints a measurement, fastest optimizer first, and the machine."""
    numbers = (
        Column(name, justify="right", no_wrap=True) for name in ("ms", "quartiles", "× fused", "first s", "state")
    )
    table = Table(Column("optimizer", overflow="fold"), *numbers, box=None, pad_edge=False)
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
    )
    for name, why in bench.skipped.items():
        console.print(f"left out: {escape(name)} ({escape(why)})", highlight=False, soft_wrap=True)


def print_code(console: Console, line: str) -> None:
    """Prints a line of code, neither wrapped nor interpreted."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)

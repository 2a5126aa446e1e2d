"""Prints a search's outcome or its report on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from autoranger.report import sentences
from autoranger.report.reading import Report
from autoranger.search.verdict.outcome import Evidence, Finalist, Outcome, Settings
from autoranger.tables import print_code, recipe

STRONGEST = 5
"""Number of pairs of components that are printed."""


def outcome_dict(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data."""
    return {
        "config": outcome.config.to_dict(),
        "default_kept": outcome.default_kept,
        "finalists": [asdict(finalist) for finalist in outcome.finalists],
        "evidence": outcome.evidence.to_dict(),
        "seconds": round(outcome.seconds, 1),
        "candidate_steps": outcome.work,
    }


def print_outcome(
    console: Console, outcome: Outcome, path: Path | None, command: str, added: Iterable[str] = ()
) -> None:
    """Prints the finalists, the verdict, how to use the file, and how to get a report.

    Args:
        console: to print on.
        outcome: of the search.
        path: of the config file; None if there is none.
        command: that reports the search.
        added: components that were added to the space by name.
    """
    evidence = outcome.evidence
    work = f"{outcome.work:,} candidate-steps in {outcome.seconds:.0f} s."
    if compared := sentences.legend(evidence):
        print_finalists(console, outcome.finalists, evidence.settings)
        console.print()
    console.print(f"{compared} {work}".strip(), highlight=False)
    print_verdict(console, sentences.verdict(outcome.exported, evidence))
    print_outlook(console, evidence)
    for name in added if compared else ():
        console.print(escape(sentences.added(name, outcome.finalists)), highlight=False)
    if path is not None:
        console.print(f"\nWritten to [bold]{escape(str(path))}[/]. In your training:\n", highlight=False)
        for line in ("import autoranger", *recipe(outcome.config, str(path))):
            print_code(console, f"    {line}")
    if compared:
        console.print("\nWhat each component contributes:\n", highlight=False)
        print_code(console, f"    {command}")


def print_finalists(console: Console, finalists: Sequence[Finalist], settings: Settings) -> None:
    """Prints the finalists, best first: their metrics, and their differences to the baselines."""
    numbers = [Column(name, no_wrap=True) for name in ("", "lr", f"valid {settings.metric}", "test")]
    shared, names = sentences.told_apart(finalists)
    results = Table(*numbers, Column("optimizer", overflow="fold"), box=None, pad_edge=False)
    costs = [settings.cost] if settings.cost else []
    columns = ("", "against ranger21", "p", "against the best baseline", "tried", *costs)
    against = Table(*columns, box=None, pad_edge=False)
    for finalist, name, cells in zip(finalists, names, sentences.finalist_cells(finalists), strict=True):
        place, _, lr, valid, test, *differences = cells
        style = "bold green" if finalist.exported else ""
        results.add_row(place.rjust(3), lr, valid, test, escape(name), style=style)
        against.add_row(place.rjust(3), *differences[: 4 + len(costs)], style=style)
    console.print(results)
    if shared:
        console.print(f"\n{sentences.SHARED}: adamw + {' + '.join(map(escape, shared))}", highlight=False)
    console.print()
    console.print(against)


def print_verdict(console: Console, words: str) -> None:
    """Prints the verdict."""
    console.print(escape(words), style="bold", highlight=False)


def print_outlook(console: Console, evidence: Evidence | None) -> None:
    """Prints what is to be expected of longer trainings, if anything is known."""
    if words := sentences.outlook(evidence):
        console.print(escape(words), highlight=False)


def print_report(console: Console, report: Report) -> None:
    """Prints a report: the verdict, the finalists, the cost, and what each component contributes."""
    console.print(escape(sentences.heading(report)), highlight=False)
    if origin := sentences.origin(report):
        console.print(escape(origin), highlight=False, soft_wrap=True)
    print_verdict(console, sentences.verdict(report.exported, report.evidence, sentences.pending(report)))
    print_outlook(console, report.evidence)
    if sentences.goes_on(report):
        print_code(console, f"\n    {sentences.next_command(report.standing, report.storage)}\n")
    if compared := sentences.legend(report.evidence):
        console.print()
        print_finalists(console, report.finalists, report.settings)
        console.print(f"\n{compared}", highlight=False)
    console.print(escape(f"\n{sentences.spent(report)}\n\n{sentences.basis(report)}"), highlight=False)
    if report.attribution is None:
        return
    table = Table("component", "Shapley value", "main effect", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    others = Table("component", Column("elsewhere", overflow="fold"), box=None, pad_edge=False)
    for name, shapley, main, elsewhere in sentences.contribution_cells(report):
        table.add_row(f"[bold]{escape(name)}[/]", escape(shapley), escape(main))
        if elsewhere:
            others.add_row(f"[bold]{escape(name)}[/]", elsewhere)
    console.print()
    console.print(table)
    columns = Column("strongest pairs", overflow="fold"), Column("interaction", no_wrap=True)
    pairs = Table(*columns, box=None, pad_edge=False)
    for pair, effect in islice(sentences.pair_cells(report), STRONGEST):
        pairs.add_row(escape(pair), escape(effect))
    if pairs.rows:
        console.print()
        console.print(pairs)
    console.print(f"\n[dim]{sentences.READING}[/]", highlight=False)
    if others.rows:
        console.print()
        console.print(others)
        console.print(f"\n[dim]{sentences.elsewhere()}[/]", highlight=False)

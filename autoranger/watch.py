"""The view of a search from outside: its rounds, its leaders and the time left, once or as long as it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from autoranger.report.sentences import advice, began, clock_time, progress
from autoranger.report.standing import Standing
from autoranger.search.space import in_words
from autoranger.search.storage.sittings import State

EVERY = 2.0
"""Seconds between two looks at a study."""


def follow(look: Callable[[], Standing], console: Console, command: Callable[[Standing], str]) -> Standing:
    """Shows how it stands with a search until it ends; on anything but a terminal it shows that once.

    Args:
        look: reads the study.
        console: to show it on.
        command: what to do next, as a line.

    Returns:
        what was seen last.
    """
    standing = look()
    if not console.is_terminal or standing.state not in (State.RUNNING, State.ELSEWHERE):
        console.print(view(standing, command(standing)), soft_wrap=True)
        return standing
    with Live(view(standing, ""), console=console, auto_refresh=False) as live:
        for standing in looks(look):
            going = standing.state is State.RUNNING
            live.update(view(standing, "" if going else command(standing)), refresh=True)
    return standing


def looks(look: Callable[[], Standing]) -> Iterator[Standing]:
    """One look after another, until the search has ended."""
    over = False
    while True:
        standing = look()
        ended = standing.state not in (State.RUNNING, State.ELSEWHERE)
        yield standing
        if ended and (over or standing.state in (State.FINISHED, State.FAILED)):
            return
        over = ended  # for a moment a search that has finished looks interrupted
        time.sleep(EVERY)


def view(standing: Standing, command: str) -> RenderableType:
    """A search at one moment: a few lines that fit into a terminal of 80 columns."""
    passed = "" if standing.seconds is None else f", {clock_time(standing.seconds)}"
    left = "" if standing.left is None else f", about {clock_time(standing.left)} left"
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=1.0, completed=standing.share, width=40), f"{standing.share:.0%}{passed}{left}")
    lines: list[RenderableType] = [Text(f"study '{standing.study}', begun {began(standing)}"), bar]
    lines.append(Text(progress(standing), style="bold"))
    if standing.stages:
        lines += [Text(), stages(standing)]
    if standing.leaders:
        lines += [Text(), leaders(standing)]
    if command:
        lines += [Text(f"\n{advice(standing)}:\n"), Text(f"    {command}", no_wrap=True, overflow="ignore")]
    return Group(*lines)


def stages(standing: Standing) -> Table:
    """Rounds and verdict: what is done of each."""
    numbers = [Column(name, justify="right", no_wrap=True) for name in ("steps", "seeds", "candidates")]
    table = Table(Column("", no_wrap=True), *numbers, box=None, pad_edge=False)
    for stage in standing.stages:
        done = f"{stage.done:,} of {stage.planned:,}" if stage.done < stage.planned else f"{stage.done:,}"
        table.add_row(stage.name, f"{stage.steps}", f"{stage.seeds}", done, style="" if stage.done else "dim")
    return table


def leaders(standing: Standing) -> Table:
    """The subsets that lead the latest round, or the finalists of a finished search."""
    numbers = [Column(name, no_wrap=True) for name in ("", "lr", f"valid {standing.settings.metric}")]
    title = "finalists" if standing.state is State.FINISHED else "leaders of this round"
    table = Table(*numbers, Column(title, overflow="fold"), box=None, pad_edge=False)
    for place, leader in enumerate(standing.leaders, start=1):
        table.add_row(f"{place}", f"{leader.lr:g}", f"{leader.value:.4f}", Text(in_words(leader.components)))
    return table

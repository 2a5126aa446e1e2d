"""The display of a running search: the round, the best candidate so far, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self

import rich.progress
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from autoranger.components.core.config import Config
from autoranger.report.sentences import seeds as count_seeds
from autoranger.search.progress import Progress
from autoranger.search.race.plan import Rung
from autoranger.search.space import in_words
from autoranger.terminal import Aside


class Bar(rich.progress.Progress):
    """A progress bar between two lines of text: what is being done, and the best so far."""

    line = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The lines, cut to the width of the terminal, and the bar."""
        yield Text(self.tasks[0].description if self.tasks else "", overflow="ellipsis", no_wrap=True)
        yield from super().get_renderables()
        yield Text(self.line, overflow="ellipsis", no_wrap=True, style="dim")


class TimeLeft(TimeRemainingColumn):
    """The time that the work will take, or that is left of the budget if that is less."""

    end: float | None = None

    def render(self, task: Task) -> Text:
        """The time, as 0:01:30."""
        of_work = task.time_remaining if task.total is not None else None
        of_budget = None if self.end is None else max(0.0, self.end - time.monotonic())
        seconds = min((s for s in (of_work, of_budget) if s is not None), default=None)
        if seconds is None:
            return Text("-:--:--", style="progress.remaining")
        return Text(str(timedelta(seconds=round(seconds))), style="progress.remaining")


class Display(Progress):
    """A live progress bar on a terminal, and a line for each round elsewhere. Use as a context manager.

    Args:
        console: to print to. A verbose one gets the lines on a terminal, too, and each new best candidate.
        title: printed before the first line.
        kept: called whenever results have been written.
    """

    def __init__(self, console: Aside, title: str = "", kept: Callable[[], None] = lambda: None) -> None:
        self.console, self.title, self.kept = console, title, kept  # type: ignore[method-assign]
        self.left = TimeLeft()
        columns = (
            BarColumn(bar_width=40),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            self.left,
        )
        self.bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.all = self.bar.add_task("preparing", total=None)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def limit(self, seconds: float) -> None:
        """The search has a budget."""
        self.left.end = time.monotonic() + seconds

    def first(self) -> None:
        """The first training begins."""
        self._say("a first training, which tells how long one takes", None)

    def sweep(self, rates: int, steps: int, seeds: int) -> None:
        """The default's learning rate is swept."""
        self._say(f"ranger21: {rates} learning rates, {steps} steps, {count_seeds(seeds)}", None)

    def round(self, number: int, of: int, *, candidates: int, rung: Rung, work: int) -> None:
        """A round begins."""
        self._say(f"round {number}/{of}: {candidates} candidates, {rung.steps} steps, {count_seeds(rung.seeds)}", work)

    def left_out(self, rounds: int) -> None:
        """There is no time for the last rounds."""
        self._print(f"no time for the last {'round' if rounds == 1 else f'{rounds} rounds'} in this budget")

    def refinement(self, variants: int, leaders: int, *, steps: int, seeds: int, work: int) -> None:
        """The leaders' numbers are refined."""
        of = "the leader" if leaders == 1 else f"{leaders} leaders"
        self._say(f"refinement: {variants} variants of {of}, {steps} steps, {count_seeds(seeds)}", work)

    def unrefined(self) -> None:
        """There is no time for that."""
        self._print("no time to refine the leaders' numbers in this budget")

    def verdict(self, candidates: int, seeds: int, *, work: int) -> None:
        """The verdict begins, or goes on with more seeds."""
        self._say(f"verdict: {candidates} finalists on {seeds} fresh seeds", work)

    def advance(self, work: int) -> None:
        """Work is done."""
        self.bar.advance(self.all, work)

    def best(self, config: Config, value: float) -> None:
        """There is a best candidate."""
        line = f"best so far {value:.4f}: lr {config.lr:g}, {in_words(config.components)}"
        if self.console.verbose and line != self.bar.line:
            self._print(line)
        self.bar.line = line

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _say(self, text: str, work: int | None) -> None:
        if self.title:
            self._print(self.title)
            self.title = ""
        if self.console.verbose or not self.console.is_terminal:
            self._print(text)
        self.bar.update(self.all, description=text)
        if work is not None:
            self.bar.update(self.all, total=self.bar.tasks[0].completed + work)


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal. Yields a function to call with the numbers of things that are done and of all."""
    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.completed}/{task.total}")
    with rich.progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        all_of_it = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(all_of_it, completed=done, total=of)

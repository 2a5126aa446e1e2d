"""The command line: what each command takes, calls and prints. `main` runs it."""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from autoranger.cli.console import err, out
from autoranger.cli.listing import components, export, presets, show, tasks
from autoranger.cli.measuring import bench, compare, transfer
from autoranger.cli.reading import report, studies, watch
from autoranger.cli.searching import new, search, tune, worker
from autoranger.terminal import interruptible, streams
from autoranger.version import __version__

COMMANDS = {
    "Search": (search, tune, worker, new),
    "What a search found": (report, studies, watch),
    "Measure": (compare, transfer, bench),
    "Look up": (tasks, components, presets, show, export),
}
"""The commands, by the panel of the help that they are in."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Begin with:  autoranger search --task digits",
)
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


@app.callback(invoke_without_command=True)
def autoranger(
    show_version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.")] = False,
) -> None:
    """Find the best subset of Ranger21's components for a task, and use it as a torch optimizer."""
    if show_version:
        out.print(__version__, highlight=False)
        raise typer.Exit


def say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning in one line."""
    err.print(f"[yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command line: status 0 on success, 2 on wrong usage, 1 on failure, 130 on Ctrl-C (128 + the signal)."""
    warnings.filterwarnings("ignore", module="optuna")
    warnings.showwarning = say_warning
    with streams(), interruptible():
        try:
            app()
        except Exception as error:
            from autoranger.components.core.errors import ConfigError, DataError, SearchError, reason

            if err.verbose:
                err.print("".join(traceback.format_exception(error)), highlight=False, markup=False, soft_wrap=True)
            if isinstance(error, ConfigError):
                fail(str(error), 2)
            if isinstance(error, DataError | SearchError):
                fail(str(error), 1)
            if isinstance(error, OSError):
                where = f" ({error.filename})" if error.filename else ""
                fail(f"the system refuses: {reason(error)}{where}.", 1)
            raise


def fail(message: str, status: int) -> NoReturn:
    """Prints what is wrong, and exits."""
    err.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(status)

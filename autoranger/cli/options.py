"""Options and arguments that several commands have."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from autoranger.cli.console import err


def explain_more(verbose: bool) -> bool:
    """Makes errors show where they come from."""
    err.verbose = verbose
    return verbose


Task = Annotated[str, typer.Option(help="A task of `autoranger tasks`, or my_task.py:MyTask.")]
Known = Annotated[
    str | None,
    typer.Option(
        "--task", help="A task's file, as my_task.py: load the components that it defines, too. Runs the file."
    ),
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1 …")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of data files; default: AUTORANGER_DATA, or a download.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", callback=explain_more, help="Also print each new best candidate, and tracebacks of errors."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress: only results, warnings and errors.")]


def completed(begin: str) -> list[str]:
    """The studies in the default storage whose names begin so, for the shell."""
    from autoranger.search.storage.existing import searches
    from autoranger.search.storage.storage import JOURNAL

    return [study.study_name for study in searches(JOURNAL) if study.study_name.startswith(begin)]


Latest = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]", help="Name of a search's study. Default: the latest one.", autocompletion=completed
    ),
]


class EngineName(enum.StrEnum):
    """Where workers are."""

    local = enum.auto()
    ray = enum.auto()


OutPath = Annotated[Path, typer.Option("--out", help="File for the tuned config.")]
Budget = Annotated[str | None, typer.Option(help="Time limit: 90s, 10m, 1h. Default: no limit.")]
SpaceOption = Annotated[
    str,
    typer.Option(
        "--space",
        help="What to choose from: modern, ranger21 (its eight), extended (all), or components as in A,B,C. "
        "Full Ranger21 is compared with in any case.",
        metavar="NAME",
    ),
]
Add = Annotated[
    list[str] | None, typer.Option(help="A component to choose from as well; can be given again.", metavar="NAME")
]
SamplerOption = Annotated[
    str,
    typer.Option(
        "--sampler",
        help="What chooses the first candidates: grid, bayes, thompson, comband, combucb, tpe, gp, cmaes, random.",
        metavar="NAME",
    ),
]
Refine = Annotated[
    bool, typer.Option("--refine/--no-refine", help="Whether the leaders' weight decay, betas, … are refined, too.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed, plan and machine give the same file.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that train at once, sharing the cores. Default: one for each core, up to 4, where "
        "that helps and there is no GPU; with Ray all that fit.",
    ),
]
EngineOption = Annotated[EngineName, typer.Option("--engine", help="Where workers are: on this machine, or Ray's.")]
Address = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster, or auto. Default: a new one on this machine.")
]
Storage = Annotated[str | None, typer.Option(help="Optuna storage: a journal file or a database URL.")]
Place = Annotated[
    str | None,
    typer.Option("--storage", help="Optuna storage with the studies: a file or a URL. Default: autoranger.journal."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted --study.")]


def introduce(task: str | None) -> None:
    """Makes the components known that a task's file or module defines."""
    if task is not None:
        from autoranger.search.tasks import introduce

        introduce(task)

"""How messages name a task, and describe an error in its code."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import torch

from autoranger.components.core.errors import first_line
from autoranger.search.tasks.task import Task

FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), f"{os.sep}site-packages{os.sep}", "<")
"""Parts of paths of code that is not the task's: torch, this package, other packages."""


def about(task: Task) -> str:
    """The beginning of a message about a task."""
    return f"task '{task.name or type(task).__name__}'"


def reason(error: BaseException) -> str:
    """An error's type, the first line of what it says, and the last line of the task's own code that led to it."""
    said = first_line(error).split(" We don't support that yet")[0].removeprefix("vmap: ")[:300].rstrip(". ")
    text = f"{type(error).__name__}: {said}".removesuffix(": ")
    own = own_frame(error)
    return text if own is None else f"{text}, at {Path(own.filename).name}:{own.lineno}"


def own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Where an error was raised, as the last line of the task's own code that led to it; None if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    return next(
        (f for f in reversed(frames) if not f.filename.startswith(FOREIGN) and FOREIGN[2] not in f.filename), None
    )


def scene(error: BaseException) -> str:
    """The line of the task's own code that led to an error, and the name of the file that raised it."""
    frames, own = traceback.extract_tb(error.__traceback__), own_frame(error)
    return f"{own.line if own else ''} {Path(frames[-1].filename).name if frames else ''}"


def too_large(task: Task, what: str) -> str:
    """A message that something does not fit into memory."""
    return f"{about(task)}: {what} does not fit into the memory of {task.device}; make model or batch smaller."

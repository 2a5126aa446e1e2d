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
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(FOREIGN) and FOREIGN[2] not in f.filename]
    return f"{text}, at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else text


def too_large(task: Task, what: str) -> str:
    """A message that something does not fit into memory."""
    return f"{about(task)}: {what} does not fit into the memory of {task.device}; make model or batch smaller."

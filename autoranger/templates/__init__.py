"""Files to begin with: a task, and a training script, both of which run as they are."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.files import write_whole
from autoranger.search.commands import program

COMMANDS = {"task": "search --task {}:MyTask", "script": "tune {}:train --budget 5m"}


def write(kind: str, path: Path) -> list[str]:
    """Writes a template, and returns lines that say how to go on; ConfigError where the file exists.

    Args:
        kind: "task" or "script".
        path: the file.
    """
    if path.suffix != ".py":
        raise ConfigError(f"{path} is no name of a Python file; write {path.with_suffix('.py')}.")
    if path.exists():
        raise ConfigError(f"{path} exists; choose another name.")
    write_whole(path, files(__name__).joinpath(f"{kind}.py").read_text(encoding="utf-8"))
    return [
        f"Written to {path}. It runs as it is:",
        "",
        f"    {program()} {COMMANDS[kind].format(shlex.quote(str(path)))}",
    ]

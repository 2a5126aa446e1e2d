"""Files that a training writes under one name, which several trainings at once would overwrite for each other."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

READ_BACK = {".bin", ".ckpt", ".h5", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".safetensors"}
"""Endings of files that trainings read again, such as the best weights so far. What mixes in a log harms no result."""

LOOKED_AT = 20_000
"""Most entries of the working folder, those near its top first, that are looked at."""


def written(folder: Path, since: float) -> tuple[str, ...]:
    """The files with weights or arrays in a folder, hidden ones aside, that have changed.

    Args:
        folder: the folder, of which at most `LOOKED_AT` entries are looked at.
        since: a time as that of `time.time`.

    Returns:
        their names within the folder.
    """
    found, folders = list[str](), deque([str(folder)])
    seen = 0
    while folders and seen < LOOKED_AT:
        try:
            with os.scandir(folders.popleft()) as entries:
                for entry in islice(entries, LOOKED_AT - seen):
                    seen += 1
                    if entry.name.startswith((".", "__")):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif Path(entry.name).suffix.lower() in READ_BACK and entry.stat().st_mtime >= since:
                        found.append(os.path.relpath(entry.path, folder))
        except OSError:  # a folder that may not be read, or a file that is already gone
            continue
    return tuple(sorted(found))


def shared(files: Sequence[str], *, apart: bool) -> str:
    """What to say of trainings that write these files.

    Args:
        files: their names.
        apart: whether one training now runs at a time.
    """
    names = ", ".join(files[:3]) + (", …" if len(files) > 3 else "")
    so = "so one training runs at a time" if apart else "which spoils their results unless its name has the worker's"
    return (
        f"the training writes {names}; several at once would overwrite each other's, {so}. Write to trial.folder "
        "instead, which each training has of its own" + (", and several run at once." if apart else ".")
    )

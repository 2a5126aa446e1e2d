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
                inside = [*islice(entries, LOOKED_AT - seen)]
        except OSError:  # it may not be read
            continue
        seen += len(inside)
        for entry in inside:
            if entry.name.startswith((".", "__")):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif Path(entry.name).suffix.lower() in READ_BACK and changed(entry, since):
                found.append(os.path.relpath(entry.path, folder))
    return tuple(sorted(found))


def changed(entry: os.DirEntry[str], since: float) -> bool:
    """Whether a file has changed since a time; not if it is gone, or a link to nothing."""
    try:
        return entry.stat().st_mtime >= since
    except OSError:
        return False


def overwritten(files: Sequence[str], *, alone: bool) -> str:
    """What to say of trainings that write these files.

    Args:
        files: their names.
        alone: whether one training now runs at a time.
    """
    names = ", ".join(files[:3]) + (", …" if len(files) > 3 else "")
    if not alone:
        return (
            f"the training writes {names}: if others that run at the same time write the same file, their results are "
            "wrong. Write to trial.folder instead, which each training has of its own."
        )
    return (
        f"the training writes {names}, which others at the same time would overwrite, so one training runs at a time. "
        "Write to trial.folder, which each training has of its own, and several run at once; or, if none overwrites "
        "the file of another, say how many: workers=2."
    )

"""Where compiled steps are kept, for the next process."""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path


def cache() -> Path:
    """Where compiled steps are kept: below XDG_CACHE_HOME, or ~/.cache; a temporary folder where that cannot be."""
    try:
        named = Path(os.environ.get("XDG_CACHE_HOME") or ".")
        place = (named if named.is_absolute() else Path.home() / ".cache") / "autoranger" / "kernels"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return place if is_ours(place) else scratch()
    except (OSError, RuntimeError):
        return scratch()


def is_ours(place: Path) -> bool:
    """Whether a folder can be written by this user and nobody else: what is in it will be run."""
    known = place.stat()
    others = known.st_mode & 0o022 or (hasattr(os, "getuid") and known.st_uid != os.getuid())
    return os.access(place, os.W_OK) and not others


@lru_cache(maxsize=1)
def scratch() -> Path:
    """A folder for this process."""
    return Path(tempfile.mkdtemp(prefix="autoranger-"))

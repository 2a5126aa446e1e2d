"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from autoranger.components.core.errors import DataError, reason


def check_writable(folder: Path, called: Path | None = None) -> None:
    """DataError where no file can be made in a folder; for a look before long work."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"cannot write to {called or folder}/ ({reason(error)}); choose another --out.") from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, by way of a temporary file beside it; DataError where that fails.

    A link stays one: the file that it leads to is replaced.
    """
    temporary = None
    try:
        place = Path(os.path.realpath(path))
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".autoranger-", delete=False) as file:
            temporary = file.name
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        with suppress(OSError):  # where files have no modes
            os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, place)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise DataError(
            f"cannot write {path}: {reason(error)}; choose a path in a folder that you can write."
        ) from None

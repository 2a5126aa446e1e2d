"""Finds data files: in the user's folder, in one of the system's, or by a download with a pinned checksum.

Every failure is a DataError of one sentence that says what to do.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from autoranger.components.core.errors import DataError, first_line

VARIABLE = "AUTORANGER_DATA"
"""Environment variable with the user's folder of data files, used if no `data_dir` is given."""


def find_folder(
    what: str,
    names: Sequence[str],
    data_dir: Path | None,
    *,
    needs: str,
    folder: str = "",
    system: Sequence[Path] = (),
) -> Path | None:
    """The folder that holds a data set's files.

    Args:
        what: name of the data set.
        names: files of the data set. A folder counts if it has one of them; others that are missing are noticed on
            reading.
        data_dir: the user's folder; if given, no other is tried.
        needs: for messages, what a folder must hold and where to get it.
        folder: subfolder of the user's folder in which the files may be.
        system: folders to try after `AUTORANGER_DATA` if there is no `data_dir`.

    Returns:
        The folder; None if the user names none and the system has none, so that the files must be downloaded.

    Raises:
        DataError: if the user names a folder that does not have the files.
    """
    variable = os.environ.get(VARIABLE)
    named = data_dir or (Path(variable) if variable else None)
    places = [named / folder, named] if named else []
    for place in [*places, *(() if data_dir else system)]:
        if any((place / name).exists() for name in names):
            return place
    if named is None:
        return None
    raise DataError(f"no {what} in {named}: it must hold {needs}.")


def download(what: str, url: str, sha256: str) -> Path:
    """The file at a URL, downloaded once into the user's cache, and checked every time.

    Raises:
        DataError: if the download fails, or the checksum is wrong.
    """
    import pooch

    name = url.rsplit("/", 1)[-1]
    try:
        path = pooch.retrieve(url, f"sha256:{sha256}", path=pooch.os_cache("autoranger"), fname=name, progressbar=False)
    except Exception as error:
        raise DataError(
            f"cannot download {what} from {url} ({type(error).__name__}: {first_line(error)[:120]}); "
            f"get the file elsewhere, unpack it and name its folder with --data-dir or {VARIABLE}."
        ) from None
    return Path(path)


def read_file(path: Path, origin: str) -> bytes:
    """The bytes of a file; raises DataError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; get it from {origin}.") from None


def read_checked(path: Path, sha256: str, origin: str) -> bytes:
    """The bytes of a file with a known checksum; raises DataError if it has another one."""
    content = read_file(path, origin)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is damaged or another file (its SHA-256 is not {sha256[:12]}…); get it from {origin}.")
    return content

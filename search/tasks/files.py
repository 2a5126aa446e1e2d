"""Where data files come from: a folder that the user names, one of the system, or a download with a pinned checksum.

Every failure is a DataError of one sentence that says what to do.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from autoranger.components.core.errors import DataError, first_line

VARIABLE = "AUTORANGER_DATA"
"""Environment variable with the folder of the user's data files, for where none is given."""


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
        names: files, of which one must be there for a folder to count; whoever reads them notices the others' absence.
        data_dir: where the user says that they are; then nowhere else counts.
        needs: what a named folder must hold and where to get it, for messages.
        folder: the files' usual folder, below the one that is named.
        system: folders to look into where the user gives no `data_dir`, after `AUTORANGER_DATA`.

    Returns:
        The folder, or None where no folder is named and the system has none: time to download.

    Raises:
        DataError: where a folder is named and the files are not in it.
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
    """The file behind an address, in the user's cache: downloaded once, checked every time.

    Raises:
        DataError: without network, or where the file is another one.
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
    """The bytes of a file; DataError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; get it from {origin}.") from None


def read_checked(path: Path, sha256: str, origin: str) -> bytes:
    """The bytes of a file of which only one version is right; DataError where this is another."""
    content = read_file(path, origin)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is damaged or another file (its SHA-256 is not {sha256[:12]}…); get it from {origin}.")
    return content

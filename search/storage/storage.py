"""Where studies are kept: a journal file, or whatever Optuna has for an address, opened to search or to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from autoranger.components.core.errors import DataError, first_line, reason
from autoranger.search.storage.journal import Journal

JOURNAL = "autoranger.journal"
"""Where studies are kept if nothing else is said."""

BUSY = 60
"""Seconds that a search waits for another one's write to an SQLite database."""


def open_storage(place: str | None) -> BaseStorage:
    """The Optuna storage at an URL or in a journal file, made where there is none; DataError where it cannot be."""
    place = place or JOURNAL
    try:
        if place.startswith("sqlite:"):
            return RDBStorage(place, engine_kwargs={"connect_args": {"timeout": BUSY}})
        if "://" in place:
            return optuna.storages.get_storage(place)
        path = Path(place)
        if not path.exists():
            path.touch()
        found = journal(path)
        with path.open("r+b"):
            return found
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"cannot open the study storage {place}: {reason(error)}; name another with --storage."
        ) from None


def existing_storage(place: str) -> BaseStorage:
    """The Optuna storage in a journal file or at an URL, for reading; DataError where there is none yet."""
    file: str | None = place
    if "://" in place:
        from sqlalchemy.engine import make_url

        url = make_url(place)
        file = url.database if url.get_backend_name() == "sqlite" else None
    if file is not None and not Path(file).is_file():
        raise DataError(f"there is no study storage {place}; name the search's own with --storage.")
    if "://" in place:
        return RDBStorage(place, skip_table_creation=True)
    return journal(Path(place))


def journal(path: Path) -> BaseStorage:
    """The storage in a journal file; DataError where a file is there, and is no journal of Optuna's."""
    if not path.is_file():
        raise DataError(f"{path} is not a file; name another with --storage.")
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"SQLite format 3"):
        raise DataError(f"{path} is an SQLite database; write --storage sqlite:///{path}.")
    if start and not start.startswith(b"{"):
        raise DataError(f"{path} is not a journal of studies; name another with --storage.")
    return JournalStorage(Journal(path))


@contextmanager
def writing() -> Iterator[None]:
    """A database that cannot be written is a DataError, as a journal that cannot be."""
    try:
        yield
    except StorageInternalError as error:
        cause = first_line(error.__cause__ or error)
        raise DataError(
            f"cannot write to the study storage: {cause}; see to it, then continue with --resume."
        ) from None

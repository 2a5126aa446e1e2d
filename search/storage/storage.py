"""Opens Optuna storages, for searching or reading: a journal file, or a database by its URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from autoranger.components.core.errors import DataError, first_line, reason
from autoranger.search.storage.database import is_url, open_database, shown
from autoranger.search.storage.journal import Journal
from autoranger.search.storage.process import undisturbed

JOURNAL = "autoranger.journal"
"""The default storage."""


def open_storage(place: str | None) -> BaseStorage:
    """The Optuna storage at a URL or in a journal file, created if missing; raises DataError if that fails."""
    place = place or JOURNAL
    try:
        if is_url(place):
            return open_database(place)
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
            f"cannot open the study storage {shown(place)}: {reason(error)}; name another with --storage."
        ) from None


def existing_storage(place: str) -> BaseStorage:
    """The existing Optuna storage in a journal file or at a URL; raises DataError if there is none."""
    file: str | None = place
    if is_url(place):
        url = make_url(place)
        file = url.database if url.get_backend_name() == "sqlite" else None
    if file is not None and not Path(file).is_file():
        raise DataError(f"there is no study storage {shown(place)}; name the search's own with --storage.")
    return open_database(place, skip_table_creation=True) if is_url(place) else journal(Path(place))


def journal(path: Path) -> BaseStorage:
    """The storage in a journal file; raises DataError if the file is not an Optuna journal."""
    if not path.is_file():
        raise DataError(f"{path} is not a file; name another with --storage.")
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"SQLite format 3"):
        raise DataError(f"{path} is an SQLite database; write --storage sqlite:///{path}.")
    if start and not start.startswith(b"{"):
        raise DataError(f"{path} is not a journal of studies; name another with --storage.")
    return JournalStorage(Journal(path))


def running(storage: BaseStorage, study_id: int) -> Iterator[tuple[int, FrozenTrial]]:
    """Yields the id and the trial, for each trial of a study that has not ended.

    Whoever ends the trials that it has begun asks here: an interruption can come before `create_new_trial` returns.
    """
    for trial in storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
        yield storage.get_trial_id_from_study_id_trial_number(study_id, trial.number), trial


@contextmanager
def writing() -> Iterator[None]:
    """Raises DataError if the database cannot be written within it. Signals wait, so that no transaction stays open."""
    try:
        with undisturbed():
            yield
    except StorageInternalError as error:
        cause = first_line(error.__cause__ or error)
        raise DataError(
            f"cannot write to the study storage: {cause}; see to it, then continue with --resume."
        ) from None

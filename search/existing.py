"""Studies that exist already: found and opened for reading, without a trace."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study

from autoranger.components.errors import ConfigError, DataError, first_line
from autoranger.search.record import FRONT, check_journal

NAMED = 5
"""Studies that are named where the one asked for does not exist."""


def find_study(name: str, place: str) -> Study:
    """The study of a search; nothing is created or changed.

    Raises:
        DataError: where there is no such storage, or it cannot be read.
        ConfigError: where it has no such study, or one that no search has made.
    """
    try:
        storage = existing_storage(place)
        names = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage) if name in names else None
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot read the study storage {place}: {first_line(error)}; check --storage.") from None
    if name.endswith(FRONT) and study is not None:
        raise ConfigError(f"study '{name}' is the front of another one; report that: {name.removesuffix(FRONT)}.")
    if study is None:
        names = sorted(other for other in names if not other.endswith(FRONT))
        raise ConfigError(f"there is no study '{name}' in {place}; {listed(name, names)}.")
    if "settings" not in study.user_attrs:
        raise ConfigError(f"study '{name}' in {place} was not made by autoranger search; name one that was.")
    return study


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
    check_journal(Path(place))
    return JournalStorage(JournalFileBackend(place))


def listed(name: str, names: Sequence[str]) -> str:
    """The names that a storage has, a few of them, those like `name` first."""
    if not names:
        return "it has none"
    near = sorted(names, key=lambda other: -SequenceMatcher(None, name, other).ratio())
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"it has {', '.join(near[:NAMED])}{more}"

"""Databases as storages: they are waited for while they are away, and URLs are shown without their passwords."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from autoranger.components.core.errors import DataError, first_line

BUSY = 60
"""Seconds that a search waits while another one writes to the same SQLite database."""

PATIENCE = 120.0
"""Seconds that a search waits for a database server that does not answer."""

DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""The packages of drivers that are not called as their modules are."""

PAUSE = 0.5
"""Seconds between two tries."""

HIDDEN = "hidden"
"""What is shown instead of a password in the options of a URL."""

Result = TypeVar("Result")


def is_url(place: str) -> bool:
    """Whether a storage is a database, named by its URL, and not a journal file."""
    return "://" in place


def shown(place: str) -> str:
    """A storage as it may be shown to anybody: a URL without its passwords."""
    if not is_url(place):
        return place
    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        return f"{place.partition('://')[0]}://…"
    hidden = {key: HIDDEN for key in url.query if "pass" in key.lower()}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def open_database(url: str, **options: Any) -> BaseStorage:
    """The Optuna storage in a database. Calls wait for a server that stops answering for a while.

    Args:
        url: of the database, as SQLAlchemy takes it.
        options: of `RDBStorage`.

    Raises:
        DataError: if the driver of this kind of database is not installed.
    """
    try:
        make_url(url).get_dialect().import_dbapi()
    except ImportError as error:
        driver = error.name or "of its driver"
        raise DataError(
            f"databases of the kind {make_url(url).drivername} need the package {driver}, which is not installed "
            f"(pip install {DRIVERS.get(driver, driver)})."
        ) from None
    if make_url(url).get_backend_name() == "sqlite":
        return made(url, engine_kwargs={"connect_args": {"timeout": BUSY}}, **options)
    # The cache that a study would put around it, since that asks the database in ways of its own.
    storage = get_storage(made(url, engine_kwargs={"pool_pre_ping": True}, **options))
    for name in BaseStorage.__abstractmethods__:
        setattr(storage, name, patient(getattr(storage, name)))
    return storage


def made(url: str, **options: Any) -> RDBStorage:
    """Optuna's storage in a database. Its tables may be made by another process in the same moment."""
    try:
        return RDBStorage(url, **options)
    except SQLAlchemyError as error:
        if isinstance(error, ArgumentError):
            raise
        time.sleep(PAUSE)
        return RDBStorage(url, **options)


def patient(call: Callable[..., Result]) -> Callable[..., Result]:
    """A function that is called again while the database server does not answer, for `PATIENCE` seconds.

    What a lost connection was in the middle of has been rolled back by the server, so that nothing is written twice
    (but for the rare answer that gets lost after the server has written: of a new trial there are two then).
    """

    @wraps(call)
    def waiting(*args: Any, **kwargs: Any) -> Result:
        lost: float | None = None
        while True:
            try:
                return call(*args, **kwargs)
            except (StorageInternalError, SQLAlchemyError) as error:
                if not any(isinstance(cause, OperationalError) for cause in causes(error)):
                    raise
                now = time.monotonic()
                if lost is None:
                    lost = now
                    warnings.warn(
                        f"the database does not answer ({said(error)}); waiting for it, {PATIENCE:.0f} s at most.",
                        stacklevel=2,
                    )
                if now - lost > PATIENCE:
                    raise DataError(
                        f"the database has not answered for {PATIENCE:.0f} s ({said(error)}); see to it, then continue "
                        "with --resume."
                    ) from None
                time.sleep(PAUSE)

    return waiting


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def said(error: BaseException) -> str:
    """What the database's driver says of an error."""
    original = next((cause.orig for cause in causes(error) if isinstance(cause, OperationalError)), None)
    return first_line(original or error)

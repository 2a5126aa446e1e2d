"""Studies that exist already, opened for reading without changing anything."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study

from autoranger.components.core.errors import ConfigError, DataError, first_line
from autoranger.search.storage.database import shown
from autoranger.search.storage.front import FRONT
from autoranger.search.storage.record import RUNS
from autoranger.search.storage.storage import existing_storage

NAMED = 5
"""Number of studies named in a message if the one asked for does not exist."""


def searches(place: str) -> list[Study]:
    """The studies of searches in a storage, the latest first. Nothing is created or changed.

    Raises:
        DataError: if there is no such storage, or it cannot be read.
    """
    storage, names = opened(place)
    found = [optuna.load_study(study_name=name, storage=storage) for name in names]
    return [study for study in reversed(found) if "settings" in study.user_attrs]


def opened(place: str) -> tuple[BaseStorage, list[str]]:
    """An existing storage and the names of its studies, the latest last; raises DataError if it cannot be read."""
    try:
        storage = existing_storage(place)
        known = sorted(storage.get_all_studies())
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"cannot read the study storage {shown(place)}: {first_line(error)}; check --storage."
        ) from None
    return storage, [study.study_name for study in known]


def find_study(name: str | None, place: str) -> Study:
    """The study of a search, the latest one if it has no name. Nothing is created or changed.

    Raises:
        DataError: if there is no such storage, or it cannot be read.
        ConfigError: if it has no such study, or the study was not made by a search.
    """
    if name is None:
        if latest := searches(place):
            return latest[0]
        raise ConfigError(f"there is no search in {shown(place)} yet; begin one, or name another --storage.")
    storage, names = opened(place)
    study = optuna.load_study(study_name=name, storage=storage) if name in names else None
    if study is not None and "front_of" in study.user_attrs:
        whole = study.user_attrs["front_of"]
        raise ConfigError(f"study '{name}' is the front of another one; report that: {whole}.")
    if study is not None and "runs_of" in study.user_attrs:
        whole = study.user_attrs["runs_of"]
        raise ConfigError(f"study '{name}' has the single trainings of another one; report that: {whole}.")
    if study is None:
        beside = {f"{n}{ending}" for n in names for ending in (FRONT, RUNS)}
        names = sorted(n for n in names if n not in beside)
        raise ConfigError(f"there is no study '{name}' in {shown(place)}; {listed(name, names)}.")
    if "settings" not in study.user_attrs:
        raise ConfigError(f"study '{name}' in {shown(place)} was not made by autoranger search; name one that was.")
    return study


def find_runs(study: Study, place: str) -> Study | None:
    """The study of the single trainings of a search; None where those of a population have none of their own."""
    storage, names = opened(place)
    name = study.study_name + RUNS
    return optuna.load_study(study_name=name, storage=storage) if name in names else None


def listed(name: str, names: Sequence[str]) -> str:
    """Some names of studies in a storage, in words, those most like `name` first."""
    if not names:
        return "it has none"
    near = sorted(names, key=lambda other: -SequenceMatcher(None, name, other).ratio())
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"it has {', '.join(near[:NAMED])}{more}"

"""A worker that joins a running search, from this machine or another one that can open the same storage."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import torch
from optuna.storages import BaseStorage
from optuna.study import Study

from autoranger.components.core.errors import ConfigError
from autoranger.search.crew.batch import Batch, Training
from autoranger.search.engine.inline import Inline
from autoranger.search.engine.member import Member
from autoranger.search.engine.pool import Pool
from autoranger.search.engine.process import Processes
from autoranger.search.proxy import Proxy
from autoranger.search.space import Space
from autoranger.search.storage.fingerprint import changed
from autoranger.search.storage.record import FINGERPRINT, ORIGIN
from autoranger.search.tasks import create
from autoranger.search.tune import training
from autoranger.search.tune.source import Named, checksum, sendable
from autoranger.search.tune.trial import Job


def join(
    storage: BaseStorage, study: str, *, spec: str | None = None, device: str = "cpu", data_dir: Path | None = None
) -> Member:
    """A worker of a search; its `serve` does what the search asks for.

    Args:
        storage: of the search's study.
        study: its name.
        spec: the task, or the training function of `tune`, if it is found by another name here than there.
        device: to train on; a training function knows its own.
        data_dir: folder of data files.

    Raises:
        ConfigError: if there is no such search, or the task or the function here is not that of the search.
    """
    try:
        found = optuna.load_study(study_name=study, storage=storage)
    except KeyError:
        raise ConfigError(f"there is no study '{study}' to join in this storage; name the search's own.") from None
    noted = found.user_attrs
    if "settings" not in noted:
        raise ConfigError(f"study '{study}' was not made by autoranger search; name one that was.")
    if "outcome" in noted:
        raise ConfigError(f"study '{study}' is finished: there is nothing left to train.")
    kind, known = next(iter(noted.get(ORIGIN, {}).items()), ("task", None))
    if not (named := spec or known):
        raise ConfigError(f"the search of study '{study}' was begun in Python; name its task with --task.")
    if kind == "train":
        return training_member(storage, found, named)
    return task_member(storage, found, create(named, device, data_dir))


def task_member(storage: BaseStorage, study: Study, task: Any) -> Member:
    """A worker that trains batches of a task's candidates in this process."""
    settings = study.user_attrs["settings"]
    proxy = Proxy(task, settings["objective"])
    require_same(study, settings, proxy.identity(Space(tuple(settings["components"])).default)[FINGERPRINT])
    work = Training(task, settings["objective"])
    work.population = proxy.population
    return Member(storage, study.study_name, Batch.from_data, Inline(work))


def training_member(storage: BaseStorage, study: Study, spec: str) -> Member:
    """A worker that calls a training function, in a process of its own, which may crash."""
    function = Named(spec)
    require_same(study, study.user_attrs["settings"], {"code": checksum(function)})
    place = TemporaryDirectory(prefix="autoranger-", ignore_cleanup_errors=True)
    pickled = sendable(training.Training(function, place.name))
    assert pickled is not None  # a name can be sent
    member = Member(storage, study.study_name, Job.from_data, Pool([Processes(pickled, 1, torch.get_num_threads())]))
    weakref.finalize(member, place.cleanup)
    return member


def require_same(study: Study, settings: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises ConfigError if what would be trained here is not what the search trains."""
    if words := changed(settings[FINGERPRINT], here):
        raise ConfigError(
            f"what would be trained here is not what study '{study.study_name}' is searched for: {words} differ; use "
            "the same code and data as there."
        )

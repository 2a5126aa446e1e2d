"""A search in which the user's own function trains each candidate."""

from __future__ import annotations

import os
import warnings
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import torch
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from autoranger.components.core.errors import ConfigError
from autoranger.search import SPACE
from autoranger.search.clock import Clock
from autoranger.search.cost import Cost
from autoranger.search.direction import Direction
from autoranger.search.engine.board import Board
from autoranger.search.engine.cluster import Actors, Cluster
from autoranger.search.engine.engine import Engine
from autoranger.search.engine.inline import Inline
from autoranger.search.engine.pool import Pool
from autoranger.search.engine.process import Processes, can_fork, usual
from autoranger.search.progress import Progress
from autoranger.search.race.plan import Plan
from autoranger.search.serialization import from_data
from autoranger.search.space import Space
from autoranger.search.study import AUTO, conduct
from autoranger.search.tune import LR_RANGE
from autoranger.search.tune.about import FULL, Full
from autoranger.search.tune.runs import Runs
from autoranger.search.tune.script import Script
from autoranger.search.tune.source import Named, checksum, name_of, sendable
from autoranger.search.tune.training import Result, Train, Training
from autoranger.search.vectorization import has_gpu
from autoranger.search.verdict.outcome import Outcome


def tune_in(
    train: Train,
    storage: BaseStorage,
    study: str,
    *,
    metric: str | None = None,
    direction: Direction | None = None,
    lr_range: tuple[float, float] = LR_RANGE,
    workers: int | None = None,
    timeout: float | None = None,
    log: Path | None = None,
    cluster: Cluster | None = None,
    space: Space | None = None,
    seed: int = 0,
    budget: float | None = None,
    plan: Plan | None = None,
    sampler: str | BaseSampler = AUTO,
    refine: bool = True,
    cost: Cost | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    began: float | None = None,
) -> Outcome:
    """Finds the best subset of components for a user's own training, with its learning rate.

    Args:
        train: trains once; see `autoranger.tune`.
        storage: Optuna storage of the trials. Each training is a trial of the study with "-runs" after its name.
        study: name of the study in it.
        metric, direction, lr_range, workers, timeout, log: see `autoranger.tune`.
        cluster: of Ray, whose actors call the function instead of worker processes.
        space: what to choose from; that of `SPACE` by default.
        seed, budget, plan, sampler, refine, cost, resume, progress, began: see `search`.

    Raises:
        ConfigError: if the function cannot be called, its first training fails, or training makes the metric worse;
            and as `search`.
        SearchError: if there is nothing to recommend.
    """
    space, code = space or Space.of(SPACE), checksum(train)
    board = Board(storage, study, Result.from_data)
    with (
        TemporaryDirectory(prefix="autoranger-", ignore_cleanup_errors=True) as place,
        closing(engine(Training(train, place), workers, timeout, log, cluster, board)) as trainer,
    ):
        subject = Script(
            trainer,
            name_of(train),
            metric=metric,
            direction=direction,
            lr_range=lr_range,
            code=code,
            open_runs=lambda direction: Runs(storage, study, direction, space, resume=resume),
            full=known_before(storage, study) if resume else None,
            spec=train.spec if isinstance(train, Named) else None,
        )
        return conduct(
            subject,
            Clock(budget, progress or Progress(), began),
            storage,
            study,
            space=space,
            seed=seed,
            plan=plan,
            sampler=sampler,
            refine=refine,
            cost=cost,
            resume=resume,
        )


def known_before(storage: BaseStorage, study: str) -> Full | None:
    """What an interrupted search has measured of a full training; None if nothing."""
    if study not in optuna.get_all_study_names(storage):
        return None
    noted = optuna.load_study(study_name=study, storage=storage).user_attrs.get("settings", {})
    return None if noted.get(FULL) is None else from_data(Full, noted[FULL], FULL)


def engine(
    work: Training,
    workers: int | None,
    timeout: float | None,
    log: Path | None,
    cluster: Cluster | None = None,
    board: Board | None = None,
) -> Engine:
    """The way to call a function: in new processes if they can import it, otherwise in forks of this one.

    If neither is possible, or `workers` is 0, it is called in this process.

    Args:
        work: calls the function.
        workers, timeout, log: see `autoranger.tune`.
        cluster: of Ray, whose actors call it instead of processes.
        board: with workers that join.
    """
    joining, asked = [] if board is None else [board], workers
    workers = (1 if has_gpu() else usual()) if asked is None else asked
    if workers < 0 or (timeout is not None and timeout <= 0):
        raise ConfigError(f"workers is {workers} and timeout {timeout}; neither may be negative, nor the timeout 0.")
    if cluster is not None:
        return Pool([Actors(work, cluster), *joining], timeout)
    if workers == 0:
        return Inline(work)
    pickled = sendable(work)
    if pickled is None and not can_fork():
        warnings.warn(
            "the training function cannot be imported by other processes, and this one cannot be copied"
            f"{' once it has used a GPU' if os.name == 'posix' else ''}: training in it, one after another, with no "
            "help against crashes and hangs. Put the function into a file of its own and import it.",
            stacklevel=3,
        )
        return Inline(work)

    def processes(size: int) -> Processes:
        if pickled is None:
            return Processes(work, size, 1, log)  # a fork with more threads waits for those of its parent
        return Processes(pickled, size, max(1, torch.get_num_threads() // size), log)

    one = (lambda: processes(1)) if asked is None and workers > 1 else None
    return Pool([processes(workers), *joining], timeout, reserve=one)

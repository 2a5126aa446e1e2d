"""A worker process: loads the user's function once, trains what it is sent, and ends with its parent process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import current_process, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from autoranger.search.tasks.words import reason
from autoranger.search.tune.training import Train, on_gpu, tail, train_once
from autoranger.search.tune.trial import Job

NAME = "autoranger-worker"
"""Beginning of the names of worker processes."""

BEGUN_AGAIN = 77
"""Exit status of a worker that imports a script which calls `tune` again."""

LOOK = 0.5
"""Seconds between looks at whether the parent process is alive."""


@dataclass(frozen=True)
class Ready:
    """The worker is ready for its first training."""


@dataclass(frozen=True)
class Refused:
    """The worker cannot load the user's function.

    Args:
        why: the reason, in a sentence.
        trace: the traceback.
    """

    why: str
    trace: str


def in_worker() -> bool:
    """Whether this process is a worker, in which a script must not begin a search."""
    return current_process().name.startswith(NAME)


def serve(
    number: int, function: bytes | Train, pipe: Connection, threads: int, log: Path | None, method: str | None
) -> None:
    """The main function of a worker: trains what it is sent, until that is None.

    Args:
        number: of the worker.
        function: pickled, or itself if this process is a fork.
        pipe: receives `Job`s, None at the end; sends `Ready` or `Refused`, then what trials tell, and `Result`s.
        threads: of torch.
        log: file to which the function's output is appended; None discards it.
        method: how processes start that the function starts, such as the workers of a loader.
    """
    multiprocessing.set_start_method(method, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the search handles Ctrl-C, and ends its workers
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
    redirect(log)
    torch.set_num_threads(threads)
    try:
        train: Train = pickle.loads(function) if isinstance(function, bytes) else function
        prepare: Callable[[], Any] | None = getattr(train, "prepare", None)
        if prepare is not None:
            prepare()
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code == BEGUN_AGAIN:
            raise
        pipe.send(Refused(reason(error), tail(error)))
        return
    pipe.send(Ready())
    while True:
        try:
            job: Job | None = pipe.recv()
        except EOFError:
            return
        if job is None:
            return
        result = train_once(train, job, number, pipe.send)
        pipe.send(result)
        if result.failure and on_gpu():
            return  # an error may have left its context unusable


def follow(parent: int) -> None:
    """Ends this process once its parent has ended, in whatever way."""
    above = parent_process()
    while os.getppid() == parent and (above is None or above.is_alive()):
        time.sleep(LOOK)
    os._exit(1)


def redirect(log: Path | None) -> None:
    """Appends standard output and error, of Python and of the process, to a file; None discards them."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    place = os.open(log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in (1, 2):
        os.dup2(place, number)
    os.close(place)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115

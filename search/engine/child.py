"""The life of a worker process: it gets its work once and then items to do, and ends with the process that began it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing import current_process, parent_process
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from autoranger.search.engine.engine import Done, Ready, Refused, Work
from autoranger.search.tasks.words import reason
from autoranger.search.vectorization import on_gpu

NAME = "autoranger-worker"
"""How worker processes are called."""

BEGUN_AGAIN = 77
"""Exit status of a worker that imports a script which would begin the search again."""

LOOK = 0.5
"""Seconds between looks for the process that began this one."""


def in_worker() -> bool:
    """Whether this process is one of ours: a script that it imports must not begin a search in it."""
    return current_process().name.startswith(NAME)


def serve(
    number: int,
    work: bytes | Work,
    pipe: Connection,
    threads: int,
    log: Path | None,
    method: str | None,
    environment: Mapping[str, str],
) -> None:
    """The whole life of a worker process: it does what it is sent, until that is None.

    Args:
        number: its own.
        work: pickled, or itself if this process is a fork.
        pipe: gives items, and None at the end; takes the messages of a `Worker`.
        threads: of torch.
        log: the file to whose end the work's output goes; None discards it.
        method: how processes begin that the work begins, such as a loader's.
        environment: variables of the process that begins this one, whatever this one is forked from.
    """
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(method, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search, which ends its workers
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
    redirect(log)
    torch.set_num_threads(threads)
    try:
        do: Work = pickle.loads(work) if isinstance(work, bytes) else work
        do.prepare(number)
    except BaseException as error:
        pipe.send(Refused(f"a worker process cannot import what it is to do ({reason(error)})."))
        return
    pipe.send(Ready())
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        if item is None:
            return
        found = do(item, number, pipe.send)
        pipe.send(Done(found))
        if getattr(found, "failure", "") and on_gpu():
            return  # an error may have spoiled this process's use of the GPU


def follow(parent: int) -> None:
    """Ends this process once the one that began it has ended, however that came."""
    above = parent_process()
    while os.getppid() == parent and (above is None or above.is_alive()):
        time.sleep(LOOK)
    os._exit(1)


def redirect(log: Path | None) -> None:
    """Leads standard output and error, the process's own too, to the end of a file or into nothing."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    place = os.open(log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in (1, 2):
        os.dup2(place, number)
    os.close(place)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115

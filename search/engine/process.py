"""Processes of this machine as workers, as the process that begins them sees them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch

from autoranger.components.core.errors import ConfigError, SearchError
from autoranger.search.engine.child import BEGUN_AGAIN, NAME, serve
from autoranger.search.engine.engine import Work, Worker
from autoranger.search.engine.pool import GRACE
from autoranger.search.vectorization import on_gpu

MOST = 4
"""Most processes that begin where nobody says how many: each has its own copy of data, model and torch."""

FORGIVEN = 3
"""Workers in a row that may end before they are ready."""


class Process(Worker):
    """A worker process.

    Args:
        context: of `multiprocessing`; says how it begins.
        number: its number.
        work: pickled, or itself if the process is a fork.
        threads: of torch in it.
        log: the file for its output; None discards it.
    """

    pipe: Connection

    def __init__(self, context: Any, number: int, work: bytes | Work, threads: int, log: Path | None) -> None:
        super().__init__(number)
        self.pipe, other = context.Pipe()
        method = multiprocessing.get_start_method()  # as without us, for processes that the work begins
        life = (number, work, other, threads, log, method, dict(os.environ))
        self.process = context.Process(target=serve, args=life, name=f"{NAME}-{number}")
        with warnings.catch_warnings(), deaf():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of forks beside threads
            self.process.start()
        other.close()

    def send(self, item: Any) -> None:
        """See `Worker`."""
        self.pipe.send(item)

    def messages(self) -> list[Any]:
        """See `Worker`."""
        messages: list[Any] = []
        try:
            while self.pipe.poll():
                messages.append(self.pipe.recv())
        except (OSError, EOFError) as error:
            if not messages:
                raise EOFError from error
        return messages

    def end(self, grace: float = 0.0) -> str:
        """See `Worker`."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(grace)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(GRACE)
        self.pipe.close()
        return died(self.process.exitcode)


class Processes:
    """A `Source` of worker processes, which begin when there is work for them.

    Args:
        work: what they do: pickled, for processes that begin anew, or itself, for forks of this one.
        size: how many.
        threads: of torch in each.
        log: the file for their output; None discards it.
    """

    here = False

    def __init__(self, work: bytes | Work, size: int, threads: int, log: Path | None = None) -> None:
        self.work, self.size, self.threads, self.log = work, size, threads, log
        self.context: BaseContext = anew() if isinstance(work, bytes) else multiprocessing.get_context("fork")
        self.free = set(range(size))
        self.stillborn = 0

    def recruit(self, wanted: int) -> Sequence[Process]:
        """See `Source`."""
        numbers = sorted(self.free)[: max(0, wanted)]
        self.free -= set(numbers)
        return [Process(self.context, number, self.work, self.threads, self.log) for number in numbers]

    def release(self, worker: Worker) -> None:
        """See `Source`."""
        self.free.add(worker.number)

    def check(self, worker: Worker, how: str) -> None:
        """See `Source`."""
        self.stillborn = 0 if worker.ready else self.stillborn + 1
        if worker.ready:
            return
        if how == died(BEGUN_AGAIN):
            raise ConfigError(
                "workers import the script that calls tune, which must not begin the search again in them: put the "
                'call under  if __name__ == "__main__":'
            )
        if self.stillborn >= FORGIVEN:
            raise SearchError(f"worker processes end before they can train: {how}.")

    def close(self) -> None:
        """See `Source`."""


def anew() -> BaseContext:
    """How processes begin that have nothing of this one: as forks of a process that has imported torch, if possible.

    That spares all but the first of them the seconds which the import takes.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods() or sys.platform == "darwin":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["autoranger.search.crew.batch", "autoranger.search.tune.training"])
    return context


def usual(threads: int | None = None) -> int:
    """How many processes share torch's threads where nobody says: up to `MOST`, with few threads left over.

    >>> [usual(threads) for threads in (1, 2, 4, 6, 8)]
    [1, 2, 4, 3, 4]
    """
    threads = threads or torch.get_num_threads()
    return max(range(1, min(MOST, threads) + 1), key=lambda size: (threads // size * size, size))


def can_fork() -> bool:
    """Whether copies of this process can train."""
    return hasattr(os, "fork") and sys.platform != "darwin" and not on_gpu()


@contextmanager
def deaf() -> Iterator[None]:
    """A process that begins within it hears no Ctrl-C, which a terminal sends to all; this one hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def died(status: int | None) -> str:
    """How a process has ended, in words."""
    if status is None or status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name if -status in {*signal.Signals} else f"signal {-status}"
    likely = ", as if memory ran out" if name == "SIGKILL" else ""
    return f"{name}{likely}"

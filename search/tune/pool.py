"""Worker processes that train. If one dies or hangs, its training has failed, and another takes its place."""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Protocol

from autoranger.components.core.errors import ConfigError, SearchError
from autoranger.search.tune.training import Result, Train
from autoranger.search.tune.trial import Job
from autoranger.search.tune.worker import BEGUN_AGAIN, NAME, Ready, Refused, serve

POLL = 0.1
"""Most seconds to wait for a message before looking at the time."""

FORGIVEN = 3
"""So many workers in a row may end before they are ready."""

PATIENCE, SHORTEST = 5.0, 30.0
"""A training hangs if it is silent for so many times as long as any finished one was, and for at least so many
seconds."""

GRACE = 3.0
"""Seconds after which a process that was asked to end is killed."""


class Listener(Protocol):
    """Is told what happens during trainings."""

    def begun(self, job: Job) -> None:
        """A training has begun."""

    def reported(self, job: Job, step: int, value: float) -> None:
        """A training has reported."""

    def pulse(self) -> None:
        """Called again and again. An exception in it ends all trainings."""


class Runner(Protocol):
    """A way to run trainings."""

    size: int
    """Number of trainings at once."""

    def run(self, jobs: Sequence[Job], listener: Listener) -> Generator[tuple[Job, Result], None, None]:
        """Trains, and yields each training with its result, in the order in which they end."""
        ...

    def close(self) -> None:
        """Ends all trainings and processes."""


class Worker:
    """A handle of a worker process."""

    def __init__(self, context: Any, number: int, function: bytes | Train, threads: int, log: Path | None) -> None:
        self.number = number
        self.pipe: Connection
        self.pipe, other = context.Pipe()
        method = multiprocessing.get_start_method()  # of this process, for what the function starts
        self.process = context.Process(
            target=serve, args=(number, function, other, threads, log, method), name=f"{NAME}-{number}"
        )
        with warnings.catch_warnings(), deaf():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of forks beside threads
            self.process.start()
        other.close()
        self.ready = False
        self.job: Job | None = None
        self.began = self.heard = time.monotonic()
        self.silence = 0.0

    def give(self, job: Job) -> None:
        """Sends a training to the process."""
        self.began = self.heard = time.monotonic()
        self.job, self.silence = job, 0.0
        self.pipe.send(job)

    def hear(self) -> Any:
        """The next message; raises EOFError if the process has ended."""
        try:
            message = self.pipe.recv()
        except (OSError, EOFError) as error:
            raise EOFError from error
        now = time.monotonic()
        self.silence, self.heard = max(self.silence, now - self.heard), now
        return message

    def end(self, grace: float = 0.0) -> int | None:
        """Waits for the process to end, kills it after `grace` seconds, and returns its exit status (see `Process`)."""
        self.process.join(grace)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(GRACE)
        self.pipe.close()
        status: int | None = self.process.exitcode
        return status


@contextmanager
def deaf() -> Iterator[None]:
    """Blocks Ctrl-C, which a terminal sends to all processes, in those that start within it. It arrives here later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Pool:
    """A `Runner` with processes.

    Args:
        function: pickled, for new processes, or itself, for forks of this one.
        size: number of processes.
        threads: of torch in each.
        timeout: most seconds of a training; if None, only hung ones are ended (see `PATIENCE`).
        log: file for the function's output; None discards it.
    """

    def __init__(
        self, function: bytes | Train, size: int, threads: int, timeout: float | None = None, log: Path | None = None
    ) -> None:
        self.function, self.size, self.threads, self.timeout, self.log = function, size, threads, timeout, log
        method = "spawn" if isinstance(function, bytes) else "fork"
        self.context: BaseContext = multiprocessing.get_context(method)
        self.workers: dict[int, Worker] = {}
        self.longest_silence = math.inf
        self.stillborn = 0

    def run(self, jobs: Sequence[Job], listener: Listener) -> Generator[tuple[Job, Result], None, None]:
        """See `Runner`."""
        waiting = deque(jobs)
        try:
            while waiting or any(worker.job for worker in self.workers.values()):
                listener.pulse()
                self._begin(len(waiting))
                for worker in self.workers.values():
                    if worker.ready and worker.job is None and waiting:
                        self._hand(worker, waiting, listener)
                yield from self._listen(listener)
                yield from self._overdue()
        finally:
            for worker in [worker for worker in self.workers.values() if worker.job]:
                self._drop(worker)

    def close(self) -> None:
        """See `Runner`."""
        workers = list(self.workers.values())
        for worker in workers:
            with suppress(OSError):
                worker.pipe.send(None)
        for worker in workers:
            self._drop(worker, GRACE if worker.ready else 0.0)

    def _begin(self, wanted: int) -> None:
        """Starts workers until there are enough for `wanted` trainings, or `size`."""
        idle = sum(worker.job is None for worker in self.workers.values())
        free = (number for number in range(self.size) if number not in self.workers)
        for number, _ in zip(free, range(wanted - idle), strict=False):
            self.workers[number] = Worker(self.context, number, self.function, self.threads, self.log)

    def _hand(self, worker: Worker, waiting: deque[Job], listener: Listener) -> None:
        job = waiting.popleft()
        try:
            worker.give(job)
        except OSError:  # it has just ended
            worker.job = None
            waiting.appendleft(job)
            return
        listener.begun(job)

    def _listen(self, listener: Listener) -> Iterator[tuple[Job, Result]]:
        """Receives messages, and yields finished trainings."""
        by_pipe = {worker.pipe: worker for worker in self.workers.values()}
        for pipe in wait(list(by_pipe), POLL):
            worker = by_pipe[pipe]  # type: ignore[index]
            job = worker.job
            try:
                message = worker.hear()
            except EOFError:
                lost = self._lost(worker)
                if job is not None:
                    yield job, lost
                continue
            if isinstance(message, Refused):
                self._drop(worker)
                raise ConfigError(f"the training function cannot be imported in a worker process ({message.why}).")
            if isinstance(message, Ready):
                worker.ready, self.stillborn = True, 0
            elif job is not None and isinstance(message, Result):
                worker.job = None
                if not message.failure:
                    longest = 0.0 if math.isinf(self.longest_silence) else self.longest_silence
                    self.longest_silence = max(longest, worker.silence)
                yield job, message
            elif job is not None and message is not None:
                listener.reported(job, *message)

    def _lost(self, worker: Worker) -> Result:
        """The result of a training whose worker has ended; raises an error if workers cannot start."""
        seconds, status = time.monotonic() - worker.began, self._drop(worker, GRACE)
        if not worker.ready:
            self.stillborn += 1
            if status == BEGUN_AGAIN:
                raise ConfigError(
                    "workers import the script that calls tune, which must not begin the search again in them: put the "
                    'call under  if __name__ == "__main__":'
                )
            if self.stillborn >= FORGIVEN:
                raise SearchError(f"worker processes end before they can train: {died(status)}.")
        return Result(failure=f"its process ended: {died(status)}", seconds=seconds)

    def _overdue(self) -> Iterator[tuple[Job, Result]]:
        """Ends and yields trainings that take too long."""
        now = time.monotonic()
        for worker in list(self.workers.values()):
            if worker.job is None or not (why := self._too_long(now - worker.began, now - worker.heard)):
                continue
            job = worker.job
            self._drop(worker)
            yield job, Result(failure=why, seconds=now - worker.began)

    def _too_long(self, seconds: float, silent: float) -> str:
        """Why a training must end that has taken and has been silent for so many seconds; empty if it need not."""
        if self.timeout is not None:
            return f"it took longer than {self.timeout:g} s" if seconds > self.timeout else ""
        limit = max(SHORTEST, PATIENCE * self.longest_silence)
        return f"it hung: no step and no report for {silent:.0f} s" if silent > limit else ""

    def _drop(self, worker: Worker, grace: float = 0.0) -> int | None:
        """Ends a worker, and returns its exit status. `_begin` replaces it."""
        del self.workers[worker.number]
        return worker.end(grace)


def died(status: int | None) -> str:
    """An exit status in words."""
    if status is None or status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name if -status in {*signal.Signals} else f"signal {-status}"
    likely = ", as where memory runs out" if name == "SIGKILL" else ""
    return f"{name}{likely}"

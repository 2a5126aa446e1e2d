"""Worker processes: trainings are handed out and results come back, whatever becomes of the processes."""

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
"""Seconds between looks at the time, where no worker says anything."""

FORGIVEN = 3
"""Workers in a row that may end before they are ready."""

PATIENCE, SHORTEST = 5.0, 30.0
"""A training hangs once it is silent for so many times as long as any before it that came to its end, and for so many
seconds at least."""

GRACE = 3.0
"""Seconds in which a process that is asked to end does so, or is killed."""


class Listener(Protocol):
    """Hears what happens while trainings go on."""

    def begun(self, job: Job) -> None:
        """A training has been handed out."""

    def reported(self, job: Job, step: int, value: float) -> None:
        """A training has reported."""

    def pulse(self) -> None:
        """Called again and again. What it raises ends what is trained."""


class Runner(Protocol):
    """A way to have trainings done."""

    size: int
    """How many go on at once."""

    def run(self, jobs: Sequence[Job], listener: Listener) -> Generator[tuple[Job, Result], None, None]:
        """Does trainings, and yields each with what came of it, as they are done."""
        ...

    def close(self) -> None:
        """Ends whatever goes on."""


class Worker:
    """A worker process, as the one that began it sees it."""

    def __init__(self, context: Any, number: int, function: bytes | Train, threads: int, log: Path | None) -> None:
        self.number = number
        self.pipe: Connection
        self.pipe, other = context.Pipe()
        method = multiprocessing.get_start_method()  # as without us; what begins anew would have others do so, too
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
        """Hands a training out."""
        self.began = self.heard = time.monotonic()
        self.job, self.silence = job, 0.0
        self.pipe.send(job)

    def hear(self) -> Any:
        """The next message; EOFError where there is none, since the process has ended."""
        try:
            message = self.pipe.recv()
        except (OSError, EOFError) as error:
            raise EOFError from error
        now = time.monotonic()
        self.silence, self.heard = max(self.silence, now - self.heard), now
        return message

    def end(self, grace: float = 0.0) -> int | None:
        """The exit status of the process, which is killed where it does not end by itself; negative is a signal's."""
        self.process.join(grace)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(GRACE)
        self.pipe.close()
        status: int | None = self.process.exitcode
        return status


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


class Pool:
    """A `Runner` with processes.

    Args:
        function: pickled, for processes that begin anew; or itself, for forks of this one.
        size: how many processes.
        threads: of torch in each.
        timeout: seconds that a training may take; where None it may be silent for long (see `PATIENCE`), but not for
            ever.
        log: where the function's output goes; nowhere where None.
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
        """Begins workers until there are as many as there is work for."""
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
        """Hears what workers say."""
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
        """What came of the training of a worker that has ended; ConfigError or SearchError where it could not begin."""
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
        """Ends trainings that take too long."""
        now = time.monotonic()
        for worker in list(self.workers.values()):
            if worker.job is None or not (why := self._too_long(now - worker.began, now - worker.heard)):
                continue
            job = worker.job
            self._drop(worker)
            yield job, Result(failure=why, seconds=now - worker.began)

    def _too_long(self, seconds: float, silent: float) -> str:
        """Why a training is ended that has taken so long, and has been silent for so long; empty where it is not."""
        if self.timeout is not None:
            return f"it took longer than {self.timeout:g} s" if seconds > self.timeout else ""
        limit = max(SHORTEST, PATIENCE * self.longest_silence)
        return f"it hung: no step and no report for {silent:.0f} s" if silent > limit else ""

    def _drop(self, worker: Worker, grace: float = 0.0) -> int | None:
        """Ends a worker, and returns its exit status; another one takes its place when there is work."""
        del self.workers[worker.number]
        return worker.end(grace)


def died(status: int | None) -> str:
    """How a process has ended, in words."""
    if status is None or status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name if -status in {*signal.Signals} else f"signal {-status}"
    likely = ", as where memory runs out" if name == "SIGKILL" else ""
    return f"{name}{likely}"

"""An engine with workers: items are handed out and results come back, whatever becomes of the workers."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from autoranger.components.core.errors import ConfigError
from autoranger.search.engine.engine import POLL, Done, Item, Listener, Lost, Ready, Refused, Source, Worker

PATIENCE, SHORTEST = 5.0, 30.0
"""A worker hangs if it is silent for this many times as long as any before it that came to its end, and for this many
seconds at least."""

GRACE = 3.0
"""Seconds that a worker has to end by itself."""


class Pool:
    """An `Engine` with workers.

    Args:
        sources: of workers.
        timeout: seconds that an item may take. If None there is no limit, but a worker may not be silent for too long
            (see `PATIENCE`).
        speed: how many times as fast it is expected to be as this process would be alone.
        reserve: makes what takes the place of the first source from `exchange` on; it may raise ConfigError.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        timeout: float | None = None,
        speed: float = 1.0,
        reserve: Callable[[], Source] | None = None,
    ) -> None:
        self.sources, self.timeout, self.speed, self.reserve = list(sources), timeout, speed, reserve
        self.workers: dict[Worker, Source] = {}
        self.longest_silence = math.inf

    @property
    def size(self) -> int:
        """See `Engine`."""
        return max(1, sum(source.size for source in self.sources))

    @property
    def others(self) -> int:
        """See `Engine`."""
        return sum(source.size for source in self.sources if not source.here)

    def exchange(self) -> bool:
        """See `Engine`."""
        reserve, self.reserve = self.reserve, None
        if reserve is None:
            return False
        try:
            others = reserve()
        except ConfigError:
            return False
        for worker in [worker for worker, source in self.workers.items() if source is self.sources[0]]:
            self._drop(worker, GRACE)
        self.sources[0].close()
        self.sources[0] = others
        return True

    def run(self, items: Sequence[Item], listener: Listener) -> Generator[tuple[Item, Any], None, None]:
        """See `Engine`."""
        waiting = deque(items)
        try:
            while waiting or any(worker.item is not None for worker in self.workers):
                listener.pulse()
                self._recruit(len(waiting))
                for worker in self.workers:
                    if worker.ready and worker.item is None and waiting:
                        self._hand(worker, waiting, listener)
                yield from self._listen(listener)
                yield from self._overdue()
        finally:
            for worker in [worker for worker in self.workers if worker.item is not None]:
                self._drop(worker)

    def close(self) -> None:
        """See `Engine`."""
        for worker in list(self.workers):
            self._drop(worker, GRACE if worker.ready else 0.0)
        for source in self.sources:
            source.close()

    def _recruit(self, waiting: int) -> None:
        """Takes on workers as long as there is work for more."""
        for source in self.sources:
            idle = sum(worker.item is None for worker in self.workers)
            self.workers |= dict.fromkeys(source.recruit(waiting - idle), source)

    def _hand(self, worker: Worker, waiting: deque[Any], listener: Listener) -> None:
        item = waiting.popleft()
        try:
            worker.give(item)
        except OSError:  # it has just ended
            worker.item = None
            waiting.appendleft(item)
            return
        listener.begun(item)

    def _listen(self, listener: Listener) -> Iterator[tuple[Any, Any]]:
        """Hears what workers say."""
        pipes = [worker.pipe for worker in self.workers if worker.pipe is not None]
        spoken = set(wait(pipes, POLL))  # waits without pipes, too
        for worker in list(self.workers):
            if worker.pipe is None or worker.pipe in spoken:
                yield from self._hear(worker, listener)

    def _hear(self, worker: Worker, listener: Listener) -> Iterator[tuple[Any, Any]]:
        """Hears what one worker says."""
        try:
            messages = worker.hear()
        except EOFError:
            item, lost = worker.item, self._lost(worker)
            if item is not None:
                yield item, lost
            return
        for message in messages:
            item = worker.item
            if isinstance(message, Refused):
                self._drop(worker)
                raise ConfigError(message.why)
            if isinstance(message, Ready):
                worker.ready = True
            elif item is not None and isinstance(message, Done):
                worker.item = None
                longest = 0.0 if math.isinf(self.longest_silence) else self.longest_silence
                self.longest_silence = max(longest, worker.silence)
                yield item, message.found
            elif item is not None and message is not None:
                listener.reported(item, *message)

    def _lost(self, worker: Worker) -> Lost:
        """What came of the item of a worker that has ended."""
        seconds, source = time.monotonic() - worker.began, self.workers[worker]
        how = self._drop(worker, GRACE)
        source.check(worker, how)
        return Lost(f"its process ended: {how}", seconds, worker.away)

    def _overdue(self) -> Iterator[tuple[Any, Lost]]:
        """Ends workers whose item takes too long."""
        now = time.monotonic()
        for worker in list(self.workers):
            if worker.item is None or not (why := self._too_long(now - worker.began, now - worker.heard)):
                continue
            item = worker.item
            self._drop(worker)
            yield item, Lost(why, now - worker.began, worker.away)

    def _too_long(self, seconds: float, silent: float) -> str:
        """Why an item is given up that has taken so long and been silent for so long; empty if it is not."""
        if self.timeout is not None:
            return f"it took longer than {self.timeout:g} s" if seconds > self.timeout else ""
        limit = max(SHORTEST, PATIENCE * self.longest_silence)
        return f"it hung: no step and no report for {silent:.0f} s" if silent > limit else ""

    def _drop(self, worker: Worker, grace: float = 0.0) -> str:
        """Ends a worker, and returns how it has ended; another one takes its place if there is work."""
        source = self.workers.pop(worker)
        how = worker.end(grace)
        source.release(worker)
        return how

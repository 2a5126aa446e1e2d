"""Threads that share the cores. An exception or Ctrl-C stops all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Self, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A pool of `count` threads; with a count of one, work runs in the caller's thread. Use as a context manager."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._stop, self._lock = threading.Event(), threading.Lock()

    def __enter__(self) -> Self:
        self._threads = torch.get_num_threads()
        if self.count > 1:
            share = max(1, self._threads // self.count)
            self._pool = ThreadPoolExecutor(self.count, initializer=torch.set_num_threads, initargs=(share,))
        return self

    def __exit__(self, *error: object) -> None:
        if self.count > 1:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def map(self, call: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Yields each item with the result of `call`, in the order in which they finish."""
        if self.count <= 1:
            yield from ((item, call(item)) for item in items)
            return
        futures = {self._pool.submit(call, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()

    def stopped(self) -> bool:
        """Whether work should end early; long calls ask now and then."""
        return self._stop.is_set()

    def locked(self, call: Callable[[int], None]) -> Callable[[int], None]:
        """`call` behind a lock, for one thread at a time."""

        def one_at_a_time(value: int) -> None:
            with self._lock:
                call(value)

        return one_at_a_time


class Counted:
    """Reports amounts of work, and remembers their sum, so that it can be taken back."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self.call, self.sum = call, 0

    def __call__(self, work: int) -> None:
        self.sum += work
        self.call(work)

    def take_back(self) -> None:
        """Takes back all that has been reported."""
        self.call(-self.sum)
        self.sum = 0

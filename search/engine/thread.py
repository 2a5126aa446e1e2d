"""A thread of this process as a worker, beside others that have joined."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

from autoranger.search.engine.engine import Done, Ready, Work, Worker


class Stopped(BaseException):
    """Raised in the thread when it is to end. Not an Exception, so that it is not taken for an error of a model."""


class Thread(Worker):
    """A worker in a thread.

    Args:
        work: what it does.
    """

    def __init__(self, work: Work) -> None:
        super().__init__(0)
        self.work, self.stop = work, threading.Event()
        self.said = SimpleQueue[Any]()
        self.said.put(Ready())

    def send(self, item: Any) -> None:
        """See `Worker`."""
        self.thread = threading.Thread(target=self._do, args=(item,), daemon=True)
        self.thread.start()

    def _do(self, item: Any) -> None:
        def tell(message: Any) -> None:
            if self.stop.is_set():
                raise Stopped
            self.said.put(message)

        try:
            self.said.put(Done(self.work(item, 0, tell)))
        except Stopped:
            pass
        except BaseException as error:
            self.said.put(error)

    def messages(self) -> list[Any]:
        """See `Worker`. Raises what the work has raised."""
        messages = list[Any]()
        while True:
            try:
                messages.append(self.said.get_nowait())
            except Empty:
                return messages
            if isinstance(messages[-1], BaseException):
                raise messages[-1]

    def end(self, grace: float = 0.0) -> str:
        """See `Worker`."""
        self.stop.set()
        if self.item is not None:
            self.thread.join()
        return "it was stopped"


class Here:
    """A `Source` of one worker, in a thread.

    Args:
        work: what it does.
    """

    here = True

    def __init__(self, work: Work) -> None:
        self.work, self.size, self.free = work, 1, True

    def recruit(self, wanted: int) -> Sequence[Worker]:
        """See `Source`."""
        if not self.free or wanted <= 0:
            return []
        self.free = False
        return [Thread(self.work)]

    def release(self, worker: Worker) -> None:
        """See `Source`."""
        self.free = True

    def check(self, worker: Worker, how: str) -> None:
        """See `Source`."""

    def close(self) -> None:
        """See `Source`."""

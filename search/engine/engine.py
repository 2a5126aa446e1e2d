"""The interfaces of this room: what is done, who does it, and who hears of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

POLL = 0.1
"""Seconds between looks at the time, if no worker says anything."""


class Work(Protocol):
    """What is done with an item. Workers get a copy of it, once."""

    def prepare(self, number: int) -> Any:
        """Called once in each worker, before the first item, with its number."""
        ...

    def __call__(self, item: Any, number: int, tell: Callable[[Any], None]) -> Any:
        """Does an item, and returns what came of it.

        Args:
            item: the item.
            number: of the worker, from 0.
            tell: sends a tuple to `Listener.reported`, or None as a sign of life.
        """
        ...


@dataclass(frozen=True)
class Lost:
    """What came of an item whose worker has ended, or took too long.

    Args:
        why: in words.
        seconds: since the item was handed out.
        away: whether the worker was on another machine, and may have gone for a reason that is not the item's.
    """

    why: str
    seconds: float
    away: bool = False


class Listener(Protocol):
    """Hears what happens while items are done."""

    def begun(self, item: Any) -> None:
        """An item has been handed out."""

    def reported(self, item: Any, *message: Any) -> None:
        """A worker has told something about its item."""

    def pulse(self) -> None:
        """Called again and again. An exception in it ends all that goes on."""


Item = TypeVar("Item")


class Engine(Protocol):
    """A way to have items done."""

    @property
    def size(self) -> int:
        """How many are done at once."""
        ...

    speed: float
    """How many times as fast it is expected to be as this process would be alone."""

    @property
    def others(self) -> int:
        """How many of them are not done by this process."""
        ...

    def exchange(self) -> bool:
        """Lets the workers in reserve take the place of those on this machine, which do not suit the work, and returns
        whether there are any.
        """
        ...

    def run(self, items: Sequence[Item], listener: Listener) -> Generator[tuple[Item, Any], None, None]:
        """Does items, and yields each with what came of it, in the order in which they end: `Lost`, or what the work
        returned.
        """
        ...

    def close(self) -> None:
        """Ends whatever goes on."""


@dataclass(frozen=True)
class Ready:
    """The message of a worker that waits for its first item."""


@dataclass(frozen=True)
class Refused:
    """The message of a worker that cannot do this work.

    Args:
        why: in words.
    """

    why: str


@dataclass(frozen=True)
class Done:
    """The message of a worker whose item is done.

    Args:
        found: what the work returned.
    """

    found: Any


class Worker:
    """One worker, as its pool sees it. Derived classes say how it is spoken to.

    Attributes:
        number: among the workers of its source.
        ready: whether it has been prepared.
        item: what it is doing; None if it waits.
        began: when it got its item.
        heard: when it last said anything.
        silence: its longest silence during this item, in seconds.
        pipe: becomes readable when it says something; None if it has to be asked.
        away: see `Lost`.
    """

    pipe: Connection | None = None
    away = False

    def __init__(self, number: int) -> None:
        self.number, self.ready = number, False
        self.item: Any = None
        self.began = self.heard = time.monotonic()
        self.silence = 0.0

    def give(self, item: Any) -> None:
        """Hands out an item. OSError if the worker has ended."""
        self.began = self.heard = time.monotonic()
        self.item, self.silence = item, 0.0
        self.send(item)

    def hear(self) -> list[Any]:
        """What it has said since the last time: `Ready`, `Refused`, `Done`, or what the work tells."""
        messages = self.messages()
        if messages:
            now = time.monotonic()
            self.silence, self.heard = max(self.silence, now - self.heard), now
        return messages

    def send(self, item: Any) -> None:
        """Sends an item to it."""
        raise NotImplementedError

    def messages(self) -> list[Any]:
        """See `hear`; EOFError if the worker has ended and there is nothing left."""
        raise NotImplementedError

    def end(self, grace: float = 0.0) -> str:
        """Ends it, within `grace` seconds if it can, and returns how it has ended, in words."""
        raise NotImplementedError


class Source(Protocol):
    """Where a pool's workers come from."""

    here: bool
    """Whether its workers are this process."""

    @property
    def size(self) -> int:
        """How many it has at most, or has now if that is not known."""
        ...

    def recruit(self, wanted: int) -> Sequence[Worker]:
        """New workers, where there is work for `wanted` more."""
        ...

    def release(self, worker: Worker) -> None:
        """Told of each worker of its that has ended, so that another may take its place."""

    def check(self, worker: Worker, how: str) -> None:
        """Raises ConfigError or SearchError if a worker has ended by itself, and others would fare no better."""

    def close(self) -> None:
        """Called at the end, when all of its workers have been ended."""

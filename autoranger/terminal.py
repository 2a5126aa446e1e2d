"""What every command has in common as a process: streams that can take what it prints, and an end when it is asked."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from rich.console import Console

from autoranger.search.storage.process import SIGNALS

ASCII = {"→": "->", "−": "-", "–": "-", "×": "x", "·": "*", "…": "...", "±": "+-", "≤": "<=", "≥": ">=", "√": "sqrt"}
ASCII |= {letter: unicodedata.name(letter).split()[-1].lower() for letter in "θφηλτβεασμ"}
"""How to say in ASCII what has no decomposition of its own."""


GRACE = 60.0
"""Seconds for what is in training when a process is asked to end."""


class Interrupted(SystemExit):
    """The process has been asked to end, by Ctrl-C or otherwise; its status is the one that shells give.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)


class Output(Console):
    """Prints results. A reader that has gone, as `head` has, wants no more of them, and that is no failure."""

    def on_broken_pipe(self) -> None:
        """Called where the reader of a pipe has gone; the base class ends the process."""
        self.quiet = True


class Aside(Output):
    """Prints what goes with the work, such as its progress. Where nobody can take that any more, the work goes on."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See `Console.print`."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.quiet = True


def in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that a stream's encoding does not have; an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= c <= "\udcff" for c in text):  # bytes of a path that are no text: as they came
        return codecs.lookup_error("surrogateescape")(error)
    decomposed = (ASCII.get(c) or unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode() for c in text)
    return "".join(c or "?" for c in decomposed), error.end


@contextmanager
def streams() -> Iterator[None]:
    """Standard output and error that take any text, also where they are closed or know no more than ASCII.

    What cannot be written in the end, to a full disk, is a failure; a reader that has gone is none of our business.
    """
    codecs.register_error("autoranger", in_ascii)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # Code pages of one machine differ between its pipes and windows; ASCII is the same in all of them.
            unicode = codecs.lookup(stream.encoding).name.startswith("utf")
            stream.reconfigure(encoding=None if unicode else "ascii", errors="autoranger")
    try:
        yield
    finally:
        failed = [error for stream in (sys.stdout, sys.stderr) if (error := flushed(stream)) is not None]
        if failed:
            try:
                sys.stderr.write(f"error: the output cannot be written: {failed[0].strerror}.\n")
                sys.stderr.flush()
            except OSError:
                pass
            sys.exit(1)


def flushed(stream: TextIO) -> OSError | None:
    """What is wrong with a stream; it is then led into nothing, so that the interpreter does not complain again."""
    try:
        stream.flush()
    except OSError as error:
        try:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
        except OSError:
            pass
        return None if error.errno == errno.EPIPE else error
    return None


@contextmanager
def interruptible() -> Iterator[None]:
    """Whatever asks this process to end raises `Interrupted`, unless it is ignored, as by `nohup`."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with handled(end, SIGNALS):
        yield


@contextmanager
def handled(call: Callable[[int, FrameType | None], None], numbers: Iterable[int]) -> Iterator[None]:
    """Has signals call something, except those that are ignored."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) not in (None, signal.SIG_IGN):
                before[number] = signal.signal(number, call)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def patience() -> Iterator[Callable[[], None]]:
    """Within it the first request to end, except Ctrl-C, waits for what is in training, though not for ever.

    Yields a function to call whenever results have been written: there the process ends if it has been asked to. If it
    is killed before, nothing is lost that would not have been lost at once.
    """
    asked: list[int] = []
    over = threading.Event()

    def insist(number: int) -> None:
        if not over.wait(GRACE):
            os.kill(os.getpid(), number)

    def later(number: int, frame: FrameType | None) -> None:
        if asked:
            raise Interrupted(number)
        asked.append(number)
        threading.Thread(target=insist, args=(number,), daemon=True).start()

    def look() -> None:
        if asked:
            raise Interrupted(asked[0])

    try:
        with handled(later, [s for s in SIGNALS if s != signal.SIGINT]):
            yield look
    finally:
        over.set()

"""The process of a command: output streams that take any text, and an orderly end on signals."""

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
"""Characters in ASCII, where Unicode has no decomposition."""


GRACE = 60.0
"""Seconds that a process asked to end may take to finish what is in training."""

AGAIN = 2.0
"""Seconds after which it is asked again, if it has not heard: Python ignores exceptions in finalizers."""


class Interrupted(SystemExit):
    """A signal asks the process to end; the exit status is 128 + the signal, as in shells.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)


class Output(Console):
    """Prints results. It is no failure if the reader of a pipe has gone, as `head` does."""

    def on_broken_pipe(self) -> None:
        """Called when the reader of a pipe has gone. (The base class ends the process.)"""
        self.quiet = True


class Aside(Output):
    """Prints progress and messages. The work goes on if they cannot be written any more.

    Args:
        verbose: whether to print more than is needed.
        options: of `Console`.
    """

    def __init__(self, *, verbose: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.verbose = verbose

    def print(self, *objects: Any, **options: Any) -> None:
        """See `Console.print`."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.quiet = True


def in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler of `codecs` that writes in ASCII what a stream's encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= c <= "\udcff" for c in text):  # bytes of a path that are no text: as they came
        return codecs.lookup_error("surrogateescape")(error)
    decomposed = (ASCII.get(c) or unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode() for c in text)
    return "".join(c or "?" for c in decomposed), error.end


@contextmanager
def streams() -> Iterator[None]:
    """Makes standard output and error take any text, even if they are closed or support only ASCII.

    Output that cannot be written in the end, as to a full disk, is a failure; a reader that has gone is not.
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
    """Flushes a stream; returns its error, if any, after redirecting it, so that Python does not report it again."""
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
    """Within it signals that ask this process to end raise `Interrupted`, except ignored ones, as under `nohup`."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with handled(end, SIGNALS):
        yield


@contextmanager
def handled(call: Callable[[int, FrameType | None], None], numbers: Iterable[int]) -> Iterator[None]:
    """Within it signals call a function, except ignored ones."""
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
    """Within it the first request to end, except Ctrl-C, waits for results to be written, at most `GRACE` seconds.

    Yields a function to call whenever results have been written: it ends the process if a signal has asked for that.
    """
    asked: list[int] = []
    over, interrupt = threading.Event(), signal.getsignal(signal.SIGINT)

    def insist(number: int) -> None:
        seconds = GRACE
        while not over.wait(seconds):
            os.kill(os.getpid(), number)
            seconds = AGAIN

    def later(number: int, frame: FrameType | None) -> None:
        if asked:
            raise Interrupted(number)
        asked.append(number)
        threading.Thread(target=insist, args=(number,), daemon=True).start()

    def now(number: int, frame: FrameType | None) -> None:
        asked.insert(0, number)
        if callable(interrupt):
            interrupt(number, frame)

    def look() -> None:
        if not asked:
            return
        if asked[0] == signal.SIGINT:  # what it raised has been ignored
            now(signal.SIGINT, None)
        raise Interrupted(asked[0])

    try:
        with handled(later, [s for s in SIGNALS if s != signal.SIGINT]), handled(now, [signal.SIGINT]):
            yield look
    finally:
        over.set()

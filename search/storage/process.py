"""Names of processes, by which others can tell whether they still live; and signals that wait for a write."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGBREAK") if hasattr(signal, name)
)
"""Signals that ask a process to end: from Ctrl-C, a scheduler or `kill`, a closed terminal, a time limit."""


def this_process() -> str:
    """The name of this process among all machines: host, process id and time of birth."""
    return f"{host()} {os.getpid()} {birth(os.getpid()) or '-'}"


def ended(process: str) -> bool | None:
    """Whether the process with this name has ended; None if that cannot be told from here."""
    words = process.split()
    if len(words) != 3 or words[0] != host() or not words[1].isdecimal():
        return None
    number, born = int(words[1]), birth(int(words[1]))
    if born is None and os.name == "posix":
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass
    # Numbers are given again, and containers of one name all begin with 1: a birth of its own tells them apart.
    return None if born is None or words[2] == "-" else born != words[2]


def host() -> str:
    """The name of this machine, as one word."""
    return "_".join(socket.gethostname().split()) or "-"


def birth(number: int) -> str | None:
    """When a process began, in the system's unit; empty if it has ended, None if that cannot be known."""
    if not Path("/proc/self/stat").exists():
        return None
    try:
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except (OSError, IndexError):
        return None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delays signals that ask this process to end until the block is done. The second one is not delayed."""
    if threading.current_thread() is not threading.main_thread():  # others never see a signal
        yield
        return
    came: list[int] = []

    def later(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:  # somebody insists, as where a database is away
            deliver()

    def deliver() -> None:
        while came:
            number = came.pop(0)
            signal.signal(number, before[number])
            signal.raise_signal(number)
            signal.signal(number, later)

    before = {s: signal.getsignal(s) for s in SIGNALS if signal.getsignal(s) not in (None, signal.SIG_IGN)}
    try:
        for number in before:
            signal.signal(number, later)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)

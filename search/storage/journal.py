"""An Optuna journal file that survives kills, full disks and power cuts, with a lock that works everywhere.

The format is Optuna's, one JSON object a line, so that all its tools read it. Three things differ from Optuna's own
backend: a record cut off at the end of the file is removed before the next one is written, a write that fails leaves
the file unchanged, and the lock needs no symbolic links and is released when its owner has ended.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from optuna.storages.journal import BaseJournalBackend

from autoranger.components.core.errors import DataError, reason
from autoranger.search.storage.process import ended, this_process, undisturbed

SYNCED = 1.0
"""Seconds between two calls of fsync, which is what a power cut may cost. A killed process loses nothing."""

GRACE = 10.0
"""Seconds after which a lock counts as left behind if nobody can tell whether its owner lives."""

PATIENCE = 3.0
"""Seconds of waiting for a lock after which the user is warned."""


class Journal(BaseJournalBackend):
    """The records of a journal file.

    Args:
        path: of the file, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock(path)
        self._starts = {0: 0}
        self._synced = time.monotonic()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from a number on. A last line without an end is still being written, or cut off."""
        number, at = log_number_from, self._starts[log_number_from]
        with self.path.open("rb") as file:
            file.seek(at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                record = parsed(line)
                if record is None:
                    raise DataError(
                        f"line {number + 1} of the journal {self.path} is damaged; bring back a copy of the file, or "
                        "name another with --storage."
                    )
                number, at = number + 1, at + len(line)
                self._starts[number] = at
                yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes records, all of them or none."""
        content = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        try:
            with undisturbed(), self._lock, self.path.open("r+b", buffering=0) as file:
                end = repair(file)
                try:
                    write(file, content)
                except BaseException:
                    file.truncate(end)
                    raise
                if time.monotonic() - self._synced > SYNCED:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
        except OSError as error:
            raise DataError(
                f"cannot write to the study storage {self.path}: {reason(error)}; see to it, then continue with "
                "--resume."
            ) from None


def parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None if there is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "op_code" in record else None


def write(file: BinaryIO, content: bytes) -> None:
    """Writes all of the content, of which the system may take a part at a time."""
    while content:
        content = content[file.write(content) :]


def repair(file: BinaryIO) -> int:
    """Removes a cut-off record, or adds a missing end of line, at the end of a file; returns the file's length."""
    size, tail = file.seek(0, os.SEEK_END), b""
    while len(tail) < size and b"\n" not in tail:
        length = min(size, max(1, 2 * len(tail)))
        file.seek(size - length)
        tail = file.read(length)
    rest = tail.rpartition(b"\n")[2]
    if rest and parsed(rest) is not None:
        file.seek(size)
        write(file, b"\n")
        return size + 1
    file.truncate(size - len(rest))
    return file.seek(0, os.SEEK_END)


class Lock:
    """Exclusive use of a file among threads, processes and machines. Use as a context manager.

    The lock is a file beside it with the name of Optuna's own locks, so that each respects the other. A lock that a
    dead process has left behind is removed: at once if the process can be seen to be dead, else after `GRACE` seconds.

    Args:
        path: of the file that is locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self.owner = ""

    def __enter__(self) -> None:
        self.owner = this_process()  # now, since it may be a fork of the one that has opened the file
        began = since = time.monotonic()
        pause, told = 0.001, False
        seen: tuple[int, int] | None = None
        while not self._taken():
            now, found = time.monotonic(), self._seen()
            if found != seen:
                seen, since = found, now
            if found is not None and (self._abandoned() or now - since > GRACE):
                self._remove(found)
                continue
            if now - began > PATIENCE and not told:
                told = True
                warnings.warn(f"waiting for {self.path}, which another process holds or has left behind.", stacklevel=2)
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder() == self.owner:  # not where others have thought it left behind
            self.path.unlink(missing_ok=True)

    def _taken(self) -> bool:
        """Takes the lock if it is free, and returns whether it did."""
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        except PermissionError:
            if os.path.lexists(self.path):  # Windows, while it is being removed
                return False
            raise
        try:
            os.write(handle, self.owner.encode())
        finally:
            os.close(handle)
        return True

    def _seen(self) -> tuple[int, int] | None:
        """Identifies the present lock, ours or Optuna's; None if there is none."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _holder(self) -> str:
        """The owner of a lock of ours; empty for any other lock."""
        try:
            return "" if self.path.is_symlink() else self.path.read_bytes()[:400].decode(errors="replace")
        except OSError:
            return ""

    def _abandoned(self) -> bool:
        """Whether its owner has ended."""
        return bool(ended(self._holder()))

    def _remove(self, found: tuple[int, int]) -> None:
        """Removes a lock that has been left behind, but not another one that has meanwhile taken its place."""
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}-{time.monotonic_ns()}")
        try:
            self.path.rename(aside)
        except OSError:
            return
        moved = aside.lstat()
        if (moved.st_ino, moved.st_mtime_ns) == found:
            aside.unlink()
        else:
            aside.rename(self.path)

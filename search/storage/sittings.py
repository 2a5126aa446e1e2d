"""When, where and by which command a search ran: each process that searched in a study is one sitting of it."""

from __future__ import annotations

import enum
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from optuna.study import Study

from autoranger.search.commands import this_command
from autoranger.search.serialization import from_data
from autoranger.search.storage.process import ended

SITTINGS = "sittings"
"""The attribute of a study with its sittings."""

SEARCHING = "searching"
"""The attribute of a study with the process that is searching."""


@dataclass(frozen=True)
class Sitting:
    """One process's part in a search.

    Args:
        began, ended: times in ISO format; no end where the process still runs, or was killed.
        command: as it was typed, without passwords.
        machine: processor, number of cores, and system.
    """

    began: str
    ended: str | None
    command: str
    machine: str

    @property
    def seconds(self) -> float | None:
        """How long it took; None if that is not known."""
        if self.ended is None:
            return None
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.began)).total_seconds()


class State(enum.StrEnum):
    """How it stands with a search."""

    FINISHED = "finished"
    FAILED = "failed"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    ELSEWHERE = "elsewhere"
    """In a process on another machine, which may have been killed."""


def begun() -> Sitting:
    """A sitting that begins now, in this process."""
    return Sitting(now(), None, this_command(), machine())


def now() -> str:
    """The local time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def sittings(study: Study) -> tuple[Sitting, ...]:
    """The sittings of a search, the first one first; none of a study that an earlier version has made."""
    return tuple(from_data(Sitting, part, SITTINGS) for part in study.user_attrs.get(SITTINGS, ()))


def noted(parts: Sequence[Sitting]) -> list[dict[str, Any]]:
    """Sittings as the attribute of a study."""
    return [asdict(part) for part in parts]


def state(study: Study) -> State:
    """Whether a search runs, and how it ended."""
    facts = study.user_attrs
    if "outcome" in facts:
        return State.FINISHED
    holder = facts.get(SEARCHING)
    if holder is None:
        return State.FAILED if facts.get("failure") else State.INTERRUPTED
    over = ended(str(holder))
    return State.ELSEWHERE if over is None else State.INTERRUPTED if over else State.RUNNING


def machine() -> str:
    """This machine in a few words."""
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def processor() -> str:
    """The processor's name from the system."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

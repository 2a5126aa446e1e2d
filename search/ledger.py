"""What components did for AdamW on the shipped tasks: for comparison with a study of one's own, and to begin one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autoranger.search.serialization import from_data

LEDGER = Path(__file__).with_name("ledger.toml")
"""The file that `ledger` reads."""


@dataclass(frozen=True)
class Ledger:
    """What components did when they were added to AdamW with warmup and cosine, each at its own best rate.

    Args:
        tasks: on which that was measured (studies/21_ledger).
        helps, hurts: by component, the tasks on which the metric became better or worse, by intervals.
        sets: subsets for a search to begin with: what helps on every task, and what is of use in the best of each.
    """

    tasks: tuple[str, ...]
    helps: Mapping[str, tuple[str, ...]]
    hurts: Mapping[str, tuple[str, ...]]
    sets: tuple[tuple[str, ...], ...] = ()

    def of(self, component: str) -> str:
        """What a component did, in a few words; empty if that was not measured, or nothing was found.

        >>> Ledger(("digits", "cifar"), {"muon": ("digits",)}, {"muon": ("cifar",)}).of("muon")
        'helps on digits, hurts on cifar'
        """
        verdicts = {"helps": self.helps, "hurts": self.hurts}
        found = {verdict: ", ".join(tasks[component]) for verdict, tasks in verdicts.items() if component in tasks}
        return ", ".join(f"{verdict} on {where}" for verdict, where in found.items())


@cache
def ledger() -> Ledger:
    """The ledger that comes with autoranger."""
    return from_data(Ledger, tomllib.loads(LEDGER.read_text(encoding="utf-8")), "ledger")

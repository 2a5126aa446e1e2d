"""The name under which a study keeps the results of a round, and what it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NAME = re.compile(r"steps=(\d+) seeds=(\d+)\+(\d+)")


@dataclass(frozen=True, order=True)
class Round:
    """Trainings that can be compared: of one length, on the same seeds.

    Args:
        steps: of each training.
        first_seed, seeds: the first of the seeds, which follow each other, and how many they are.
    """

    steps: int
    first_seed: int
    seeds: int

    @classmethod
    def of(cls, steps: int, seeds: Sequence[int]) -> Round:
        """The round of this length on these seeds."""
        return cls(steps, seeds[0], len(seeds))

    @classmethod
    def parse(cls, name: str) -> Round | None:
        """The round of a name; None where it is no such name."""
        match = NAME.fullmatch(name)
        return cls(*map(int, match.groups())) if match else None

    @property
    def name(self) -> str:
        """The key of a trial's attribute `rounds`."""
        return f"steps={self.steps} seeds={self.first_seed}+{self.seeds}"

    @property
    def work(self) -> int:
        """Training steps of a candidate in it."""
        return self.steps * self.seeds

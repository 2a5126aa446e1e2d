"""The name under which a study keeps the results of a round, and how to read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NAME = re.compile(r"steps=(\d+) seeds=(\d+)\+(\d+)")


@dataclass(frozen=True, order=True)
class Round:
    """Trainings of one length on the same seeds, which can be compared.

    Args:
        steps: of each training.
        first_seed, seeds: the first seed and the number of seeds, which are consecutive.
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
        """The round with this name; None for any other name."""
        match = NAME.fullmatch(name)
        return cls(*map(int, match.groups())) if match else None

    @property
    def name(self) -> str:
        """The key of a trial's attribute `rounds`."""
        return f"steps={self.steps} seeds={self.first_seed}+{self.seeds}"

    @property
    def work(self) -> int:
        """Training steps that each candidate takes in it."""
        return self.steps * self.seeds

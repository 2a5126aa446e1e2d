"""What a search tells while it runs. The base class listens and says nothing."""

from __future__ import annotations

from autoranger.components.core.config import Config
from autoranger.search.race.plan import Rung


class Progress:
    """A listener to a search; a display overrides what it wants to know."""

    def first(self) -> None:
        """The first training of all begins, which tells how long one takes."""

    def sweep(self, rates: int, steps: int, seeds: int) -> None:
        """The default's learning rate is swept, before any race, so that there is something to export in the end.

        Args:
            rates: how many are tried.
            steps, seeds: length and seeds of the trainings.
        """

    def round(self, number: int, of: int, *, candidates: int, rung: Rung, work: int) -> None:
        """A round begins, with about that many candidates (arms × learning rates) in it.

        Args:
            number, of: which round, of how many.
            candidates: how many are in it.
            rung: length and seeds of their trainings.
            work: candidate-steps from here to the end of the search, estimated.
        """

    def left_out(self, rounds: int) -> None:
        """There is no time for the last rounds of the race."""

    def verdict(self, candidates: int, seeds: int) -> None:
        """The verdict begins."""

    def training(self, work: int) -> None:
        """A population begins to train: `work` candidate-steps."""

    def advance(self, work: int) -> None:
        """That many candidate-steps are done."""

    def best(self, config: Config, value: float) -> None:
        """The best candidate of the round so far, and its metric."""

    def kept(self) -> None:
        """Results have been written: a good moment to end, for who wants to."""

"""Listeners to the progress of a search. The base class ignores everything."""

from __future__ import annotations

from autoranger.components.core.config import Config
from autoranger.search.race.plan import Rung


class Progress:
    """A listener to a search; override the methods for what is to be shown."""

    def limit(self, seconds: float) -> None:
        """The search has a budget of so many seconds from now on."""

    def first(self) -> None:
        """The first training of all begins, which tells how long one takes."""

    def sweep(self, rates: int, steps: int, seeds: int) -> None:
        """The default's learning rate is swept, before the race.

        Args:
            rates: how many are tried.
            steps, seeds: length and seeds of the trainings.
        """

    def round(self, number: int, of: int, *, candidates: int, rung: Rung, work: int) -> None:
        """A round begins.

        Args:
            number, of: number of the round, and of all rounds.
            candidates: about how many it has (arms × learning rates).
            rung: length and seeds of their trainings.
            work: candidate-steps from here to the end of the search, estimated.
        """

    def left_out(self, rounds: int) -> None:
        """The last rounds of the race are left out for lack of time."""

    def refinement(self, variants: int, leaders: int, *, steps: int, seeds: int, work: int) -> None:
        """The numbers of the race's leaders are refined.

        Args:
            variants, leaders: how many variants there are, of how many leaders.
            steps, seeds: length and seeds of their trainings. The best go on to further seeds.
            work: candidate-steps from here to the end of the search, estimated.
        """

    def unrefined(self) -> None:
        """There is no time to refine the leaders' numbers."""

    def verdict(self, candidates: int, seeds: int, *, work: int) -> None:
        """The verdict begins, or goes on with more seeds: `work` candidate-steps."""

    def training(self, work: int) -> None:
        """A population begins to train: `work` candidate-steps."""

    def advance(self, work: int) -> None:
        """That many candidate-steps are done."""

    def best(self, config: Config, value: float) -> None:
        """There is a new best candidate of the round."""

    def kept(self) -> None:
        """Results have been written: a good moment to end the process."""

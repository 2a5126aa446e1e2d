"""Trainings in this very process, one after another: where a function cannot be had in others, or is to be debugged."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from autoranger.search.tune.pool import Listener
from autoranger.search.tune.training import Result, Train, on_gpu, train_once
from autoranger.search.tune.trial import Job
from autoranger.search.vectorization import forked


class Inline:
    """A `Runner` without processes: what crashes or hangs takes the search with it.

    Args:
        train: the function.
    """

    size = 1

    def __init__(self, train: Train) -> None:
        self.train = train

    def run(self, jobs: Sequence[Job], listener: Listener) -> Generator[tuple[Job, Result], None, None]:
        """See `Runner`."""
        for job in jobs:
            listener.pulse()
            listener.begun(job)

            def tell(report: tuple[int, float] | None, job: Job = job) -> None:
                listener.pulse()
                if report is not None:
                    listener.reported(job, *report)

            with forked(torch.device("cuda" if on_gpu() else "cpu")):
                result = train_once(self.train, job, 0, tell)
            yield job, result

    def close(self) -> None:
        """See `Runner`."""

"""Trainings in this process, one after another: for a debugger, or if other processes cannot import the function."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from autoranger.search.tune.pool import Listener
from autoranger.search.tune.training import Result, Train, on_gpu, train_once
from autoranger.search.tune.trial import Job
from autoranger.search.vectorization import forked


class Inline:
    """A `Runner` without processes. A crash ends the search, and a hung training is not noticed.

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

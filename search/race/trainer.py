"""The interface between a race and what trains its candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from autoranger.components.core.config import Config
from autoranger.search.population.population import Scores
from autoranger.search.tasks.task import Task


class Trainer(Protocol):
    """Trains candidates from scratch. `Population`, `crew.Crew` and `tune.script.Script` are three."""

    @property
    def failures(self) -> Mapping[Config, str]:
        """The reasons of failed candidates."""
        ...

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        curve: int = 0,
        progress: Callable[[int], None] = lambda done: None,
        report: Callable[[list[Config], Scores], None] = lambda configs, scores: None,
        among: Sequence[Config] = (),
    ) -> Scores:
        """Trains every config with every seed, and returns the scores; see `Population.train`.

        A trainer that cannot score on the way gives no curve.
        """
        ...


class CurveTrainer(Trainer, Protocol):
    """A trainer that can score candidates on the way. `Population` and `crew.Crew` are two."""

    @property
    def task(self) -> Task:
        """What it trains."""
        ...

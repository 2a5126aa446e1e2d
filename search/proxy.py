"""A task as the subject of a search: its candidates are trained as a population of proxy models."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from autoranger.components.core.config import Config
from autoranger.components.core.proxy import proxy_of
from autoranger.search.clock import Clock, OutOfTime
from autoranger.search.crew.crew import Crew
from autoranger.search.engine.engine import Engine
from autoranger.search.population import Population
from autoranger.search.population.checkpoint import Checkpoints
from autoranger.search.race.objectives import LOSS, with_objective
from autoranger.search.race.plan import Plan, ladder, make_plan
from autoranger.search.race.sanity import check_metric
from autoranger.search.race.trainer import Trainer
from autoranger.search.storage.fingerprint import fingerprint
from autoranger.search.storage.record import FINGERPRINT
from autoranger.search.subject import Seeds, rates
from autoranger.search.tasks.task import Task
from autoranger.search.tasks.words import about
from autoranger.search.vectorization import forked, length


class Proxy:
    """The `Subject` of a search on a task.

    Args:
        task: the task.
        objective: the name of the objective; see `with_objective`.
        engine: does the `Training` of the task, if its candidates are not trained in this process.
        checkpoints: of long trainings in this process; None for none.
    """

    def __init__(
        self, task: Task, objective: str, engine: Engine | None = None, checkpoints: Checkpoints | None = None
    ) -> None:
        self.about, for_objective = with_objective(task, objective)
        self.lrs = rates(about(task), self.about.lr_range)
        self.objective, self.population = objective, Population(self.about)
        self.population.checkpoints = checkpoints
        self.crew = None if engine is None else Crew(self.population, engine)
        self.trainer: Trainer = for_objective(self.crew or self.population)

    @property
    def learned(self) -> dict[str, Any]:
        """See `Subject`."""
        return {}

    @property
    def scale(self) -> dict[str, Any]:
        """See `Subject`."""
        with forked(self.about.device):
            examples = length(self.population.data["train"][1])
            return proxy_of(self.population.skeleton.model, self.about.batch_size, self.about.steps, examples)

    @property
    def shared(self) -> int | None:
        """See `Subject`."""
        return None if self.about.resplit else length(self.population.data["valid"][1])

    @property
    def origin(self) -> dict[str, str]:
        """See `Subject`."""
        return {} if self.about.origin is None else {"task": self.about.origin.spec}

    def identity(self, arm: Config) -> dict[str, Any]:
        """See `Subject`."""
        return {FINGERPRINT: fingerprint(self.population, replace(arm, lr=self.lrs[0]))}

    def calibrate(self, clock: Clock, arms: Sequence[Config], seeds: Seeds) -> None:
        """See `Subject`."""
        if clock.budget is not None:
            clock.first()
            clock.calibrate(self.population, [replace(arm, lr=self.lrs[0]) for arm in arms])
            clock.rate *= 1.0 if self.crew is None else self.crew.engine.speed

    def check(self, arm: Config, clock: Clock, seeds: Seeds) -> None:
        """See `Subject`."""
        if self.objective == LOSS:
            return
        with clock.until(clock.halfway), suppress(OutOfTime):
            check_metric(self.population, arm, self.lrs, self.about.steps, seeds, progress=clock.advance)

    def plans(self, most: int) -> list[Plan]:
        """See `Subject`."""
        return ladder(self.about.steps, self.about.survivors, most)

    def standard(self, most: int) -> Plan:
        """See `Subject`."""
        return make_plan(self.about.steps, arms=most, survivors=self.about.survivors)

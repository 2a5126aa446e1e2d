"""Budgets in simulated time: whole searches of trainings that take as long as they are said to."""

from __future__ import annotations

import time as real
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution

from autoranger import Config, ConfigError, SearchError
from autoranger.search import clock as clocks
from autoranger.search import study as studies
from autoranger.search import tasks
from autoranger.search.clock import FEWEST_SEEDS, Clock
from autoranger.search.population.population import Scores, blank
from autoranger.search.progress import Progress
from autoranger.search.race.plan import Plan, Rung, ladder, make_plan
from autoranger.search.race.race import Race
from autoranger.search.space import Space, lr_grid
from autoranger.search.storage.record import Record
from tests import toy

SPACE = Space(("gradient_centralization", "lookahead", "norm_loss"))
CHUNK = 64


class Time:
    """A time that passes only when it is told to. Stands for the module in `clock`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """See `time.monotonic`."""
        return self.now


@dataclass
class Machine:
    """How long things take.

    Args:
        step: seconds of one candidate's step.
        setup: seconds before a chunk's first step.
        scoring: seconds of scoring one candidate.
        writing: seconds of writing a trial.
        later: from 20 s on, everything takes so many times as long.
        together: candidates in one pass through the model.
    """

    step: float
    setup: float = 0.02
    scoring: float = 0.0
    writing: float = 0.001
    later: float = 1.0
    together: int = CHUNK


class Simulated:
    """A subject and its trainer, of `steps`, on a machine."""

    objective, scale, origin, learned, shared = "metric", {}, {}, {}, None

    def __init__(self, time: Time, machine: Machine, steps: int) -> None:
        self.time, self.machine, self.begin = time, machine, time.now
        self.about: Any = SimpleNamespace(
            name="s", score_name="score", steps=steps, batch_size=8, lr_range=(0.01, 0.1), device=torch.device("cpu")
        )
        self.lrs, self.trainer, self.failures = lr_grid(0.01, 0.1), self, dict[Config, str]()
        self.device, self.rows = torch.device("cpu"), 512
        self.pulse: Callable[[], None] = lambda: None

    def passes(self, seconds: float) -> None:
        """Lets time pass."""
        self.time.now += seconds * (self.machine.later if self.time.now - self.begin > 20 else 1.0)

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
        """See `Population.train`."""
        scores = blank(len(configs), len(seeds), splits, curve)
        for begin in range(0, len(configs), CHUNK):
            part = list(configs[begin : begin + CHUNK])
            rows = len(part) * len(seeds)
            self.passes(self.machine.setup)
            for _ in range(steps):
                for first in range(0, rows, self.machine.together):
                    self.pulse()
                    self.passes(self.machine.step * min(rows - first, self.machine.together))
            progress(rows * steps)
            for _ in range(rows * (len(splits) + curve)):
                self.pulse()
                self.passes(self.machine.scoring)
            found = {split: np.array([[score(c, seed) for seed in seeds] for c in part]) for split in splits}
            for split, values in found.items():
                scores[split][begin : begin + CHUNK] = values
            report(part, found)
        return scores

    def identity(self, arm: Config) -> dict[str, Any]:
        """See `Subject`."""
        return {}

    def calibrate(self, clock: Clock, arms: Sequence[Config], seeds: Any) -> None:
        """See `Subject`."""
        clock.calibrate(self, [replace(arm, lr=0.01) for arm in arms])  # type: ignore[arg-type]

    def check(self, arm: Config, clock: Clock, seeds: Any) -> None:
        """See `Subject`."""

    def plans(self, most: int) -> list[Plan]:
        """See `Subject`."""
        return ladder(self.about.steps, most=most)

    def standard(self, most: int) -> Plan:
        """See `Subject`."""
        return make_plan(self.about.steps)


def score(config: Config, seed: int) -> float:
    """The metric of a training."""
    rng = np.random.default_rng([seed, zlib.crc32(repr(config).encode())])
    return float(-0.1 * np.log10(config.lr / 0.03) ** 2 + 0.1 * rng.standard_normal())


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(clocks, "time", found)
    return found


def searched(
    time: Time, machine: Machine, budget: float, monkeypatch: pytest.MonkeyPatch, *, steps: int = 300, **other: Any
) -> tuple[float, Any]:
    """The seconds of a search, and its outcome."""
    subject, began = Simulated(time, machine, steps), time.now
    create, end = optuna.storages.InMemoryStorage.create_new_trial, Record._finish

    def created(self: Any, *args: Any, **options: Any) -> int:
        subject.passes(machine.writing)
        return create(self, *args, **options)

    def finish(self: Record, config: Config, entry: Any, *rest: Any) -> None:
        if entry.trial is not None:
            subject.passes(machine.writing)
        end(self, config, entry, *rest)

    monkeypatch.setattr(optuna.storages.InMemoryStorage, "create_new_trial", created)
    monkeypatch.setattr(Record, "_finish", finish)
    asked: dict[str, Any] = {"seed": 0, "plan": None, "sampler": "auto", "cost": None, "resume": False, "refine": True}
    storage = optuna.storages.InMemoryStorage()
    asked |= {"space": SPACE, **other}
    outcome = studies.conduct(subject, Clock(budget, Progress()), storage, "s", **asked)  # type: ignore[arg-type]
    return time.now - began, outcome


MACHINES = {
    "quick": (Machine(1 / 4000), 60.0, 300),
    "scores slowly": (Machine(1 / 4000, scoring=0.001), 60.0, 300),
    "half as fast later": (Machine(1 / 4000, later=2.0), 60.0, 300),
    "three times as fast later": (Machine(1 / 4000, later=1 / 3), 60.0, 300),
    "busy": (Machine(1 / 1000, setup=0.05, scoring=0.002), 60.0, 300),
    "50 ms a step, one by one": (Machine(0.05, together=1), 600.0, 20),
    "writes slowly": (Machine(1 / 4000, writing=0.05), 10.0, 30),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_budget_is_kept_and_used(name: str, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, budget, steps = MACHINES[name]
    seconds, outcome = searched(time, machine, budget, monkeypatch, steps=steps)
    assert outcome.evidence.comparison is not None
    assert 0.8 * budget < seconds < budget


def test_a_sampler_that_takes_long_leaves_time_for_the_other_rounds(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(optuna.samplers.RandomSampler):
        """Thinks for a second before each proposal."""

        def infer_relative_search_space(self, *args: Any) -> dict[str, BaseDistribution]:
            time.now += 1.0
            return super().infer_relative_search_space(*args)

    seconds, outcome = searched(
        time, Machine(1 / 4000), 60.0, monkeypatch, space=Space.of("modern"), sampler=Slow(seed=0)
    )
    assert len(outcome.evidence.plan.rungs) == 3
    assert seconds < 60.0


def test_without_time_even_for_a_sweep_a_budget_is_kept(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.now
    with pytest.raises(SearchError, match="in 10 s there is no time"):
        searched(time, Machine(0.05, together=1), 10.0, monkeypatch, steps=100)
    assert time.now - began < 10.0


def test_the_shortest_comparison_is_tried_if_there_is_time_for_it_alone(time: Time) -> None:
    """Its first round and its verdict: the others can be left out."""
    subject, clock = Simulated(time, Machine(0.1), 300), Clock(60.0, Progress())
    plan = subject.plans(256)[0]
    least = studies.cheapest(subject, SPACE, clock)  # type: ignore[arg-type]
    assert least == plan.shortest.cost(SPACE.size, len(subject.lrs)) < 0.6 * plan.cost(SPACE.size, len(subject.lrs))
    for seconds, expected in ((1.01 * least, plan), (0.99 * least, None)):
        clock.rate = seconds / 54.0  # what is left of the budget for the race and the verdict
        assert studies.planned(subject, SPACE, clock, "auto", refine=True) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(("limit", "entrants"), [(80, 8), (79, 4), (20, 2), (19, 0)])
def test_a_round_is_halved_until_there_is_time_for_it(limit: int, entrants: int) -> None:
    """Down to as many arms as it keeps."""
    clock: Any = SimpleNamespace(affords=lambda work, plan: work <= limit)
    race, rung = Race(None, None, {}, clock), Rung(10, 1, keep=2, lrs=1)  # type: ignore[arg-type]
    scores = {arm: {0.01: np.array([float(rank)])} for rank, arm in enumerate(SPACE.arms(8, 0))}
    found = race.entrants(scores, 8, rung, Plan(8, (rung,), 8, 10))
    assert found == ({arm: [0.01] for arm in [*reversed(scores)][:entrants]}, entrants)


def test_a_verdict_begins_with_what_takes_a_quarter_of_the_time(time: Time) -> None:
    clock, plan = Clock(100.0, Progress()), Plan(4, (), 32, 20)
    clock.rate = 100.0  # 7 candidates of 20 steps: 1.4 s for each seed, and 90 s are left
    assert clock.verdict_seeds(plan, 7) == 16
    time.now += 60.0
    assert clock.verdict_seeds(plan, 7) == FEWEST_SEEDS
    assert Clock(None, Progress()).verdict_seeds(plan, 7) == 32


def test_a_verdict_goes_on_as_long_as_there_is_time(time: Time) -> None:
    clock, plan = Clock(100.0, Progress()), Plan(4, (), 8, 20)
    clock.rate, clock.scoring = 100.0, 5.0  # 7 candidates of 30 steps: 2.1 s for each seed
    assert clock.further_seeds(plan, 7, 8) == 8, "as many again"
    time.now += 80.0
    assert clock.further_seeds(plan, 7, 8) == 4, "those for which there is time"
    assert clock.further_seeds(plan, 7, 32) == 0, "too few to matter"
    assert clock.further_seeds(plan, 7, 64) == 0, "enough"
    assert Clock(None, Progress()).further_seeds(plan, 7, 8) == 0


def test_a_budget_can_have_begun_before_its_clock(time: Time) -> None:
    limits = list[float]()

    class Told(Progress):
        def limit(self, seconds: float) -> None:
            limits.append(seconds)

    clock = Clock(10.0, Told(), began=time.now - 4.0)
    assert (clock.elapsed, limits) == (4.0, [6.0])


def test_the_budget_of_a_command_counts_the_import_of_torch(
    autoranger: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    began, made = list[float](), list[float]()

    def create(*args: Any) -> Any:
        made.append(real.monotonic())
        return toy.Toy()

    def search(*args: Any, **options: Any) -> Any:
        began.append(options["began"])
        raise ConfigError("enough")

    monkeypatch.setattr(tasks, "create", create)
    monkeypatch.setattr(studies, "search", search)
    before = real.monotonic()
    assert "enough" in autoranger("search", "--task", "toy", "--budget", "10s")[2]
    assert before <= began[0] < made[0]

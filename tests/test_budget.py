"""What a search says when it has little time, or nothing to say: budgets that bind, and failures that are failures."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import rich.progress
import torch
import torch.nn.functional as F
from optuna.trial import TrialState

from autoranger import Config, SearchError
from autoranger.components.core.errors import ConfigError
from autoranger.display import TimeLeft
from autoranger.search.clock import FEWEST_SEEDS, Clock, OutOfTime
from autoranger.search.population import Population
from autoranger.search.progress import Progress
from autoranger.search.race.plan import Plan, Rung, ladder
from autoranger.search.race.race import Grid, Race
from autoranger.search.race.sanity import check_metric
from autoranger.search.space import Space, lr_grid
from autoranger.search.storage.record import Record
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from tests import toy
from tests.test_search import PLAN, SMALL, Table

TASK = """
import sys
sys.path.insert(0, {folder!r})
import torch.nn.functional as F
from tests.toy import Toy

class Mine(Toy):
    name = "mine"
    steps = 4

class Diverging(Mine):
    def loss(self, output, target):
        return super().loss(output, target) + (0 * output).sqrt().sum()  # 0, with a gradient that is no number

class Wrong(Mine):
    steps = 12
    def metric(self, output, target):
        return F.cross_entropy(output, target)
"""


class Sleepy:
    """Looks like a population that trains one row after another, each step and each scoring in a given time."""

    def __init__(self, step: float, scoring: float) -> None:
        self.step, self.scoring, self.passes = step, scoring, 0
        self.device, self.rows = torch.device("cpu"), 512
        self.pulse = lambda: None

    def train(self, configs, seeds, steps, *, splits=("valid",), **rest):
        for _ in range(len(configs) * len(seeds) * steps):
            self.pulse()
            self.passes += 1
            time.sleep(self.step)
        for _ in range(len(configs) * len(seeds) * len(splits)):
            self.pulse()
            time.sleep(self.scoring)


class Slow(toy.Refused):
    """A model that takes a while."""

    def loss(self, output, target):
        time.sleep(0.002)
        return super().loss(output, target)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    Path("mine.py").write_text(TASK.format(folder=str(Path(__file__).parents[1])))
    return tmp_path


@pytest.fixture
def autoranger(autoranger):
    """The same, with what is printed in one line."""

    def run(*words: str) -> tuple[int, str, str]:
        status, out, err = autoranger(*words)
        return status, " ".join(out.split()), err

    return run


# the clock


@pytest.mark.parametrize(("device", "rows", "most"), [("cpu", 8, 32), ("cuda", 24, 24), ("cuda", 65535, 256)])
def test_speed_is_measured_by_as_many_candidates_as_suit_the_device(device, rows, most):
    population, sizes = Sleepy(0.0, 0.0), []
    train = population.train

    def noted(configs, *args, **options):
        sizes.append(len(configs))
        train(configs, *args, **options)

    population.device, population.rows, population.train = torch.device(device), rows, noted
    Clock(60.0, Progress()).calibrate(population, [Config(lr=0.1), Config(lr=0.2)])
    assert max(sizes) == most


@pytest.mark.parametrize("budget", [1.0, 10.0])
def test_measuring_takes_a_fifth_of_the_budget(budget):
    clock, population = Clock(budget, Progress()), Sleepy(0.005, 0.02)
    clock.calibrate(population, [Config(lr=0.1), Config(lr=0.2)])
    assert clock.elapsed < 0.2 * budget + 0.2
    assert 40 < clock.rate < 210, "200 steps a second, less what a loaded machine takes"
    if budget == 10.0:
        assert 1 < clock.scoring < 16, "4 steps"


def test_a_scoring_that_is_too_long_to_measure_is_not_taken_for_none():
    clock = Clock(1.0, Progress())
    clock.calibrate(Sleepy(0.001, 0.3), [Config(lr=0.1)])
    assert clock.scoring > 1


def test_a_clock_stops_what_takes_too_long():
    clock, population = Clock(10.0, Progress()), Sleepy(0.01, 0.0)
    population.pulse = clock.check
    with clock.until(0.1), pytest.raises(OutOfTime):
        population.train([Config()], [0], 1000)
    assert clock.elapsed < 2.0
    clock.check()  # outside, the budget's own end counts


def test_a_real_population_stops_between_two_passes():
    """While it is trained and while it is scored, whether many rows at once or one after another."""
    for task, splits in ((toy.Toy(), ()), (toy.Refused(), ()), (toy.Toy(), ("valid",))):
        with pytest.warns(UserWarning, match="one by one") if isinstance(task, toy.Refused) else nullcontext():
            population = Population(task)
        passes, most = [0], 5 if not splits else 13

        def pulse(passes=passes, most=most):
            passes[0] += 1
            if passes[0] >= most:
                raise OutOfTime

        population.pulse = pulse
        with pytest.raises(OutOfTime):
            population.train([Config(lr=0.01)] * 2, [0], 12, splits=splits)
        assert passes[0] <= most + 3, "other threads come to an end, too"


def test_plans_pay_for_scoring():
    for plan in ladder(100):
        trainings = [(rung.seeds, rung.steps) for rung in plan.rungs]
        assert plan.cost(256, 5, scoring=10.0) > plan.cost(256, 5)
        assert all(steps in (50, 100) for _, steps in trainings)
        assert plan.steps == 100
    one = Plan(4, (Rung(10, 1, 4, 99),), 8, 20)
    assert one.cost(4, 5) == (4 + 6) * 5 * 10 + (4 + 5) * 8 * 20
    assert one.cost(4, 5, scoring=3.0) == (4 + 6) * 5 * 13 + (4 + 5) * 8 * (20 + 6)


def test_a_race_ends_so_that_there_is_time_for_a_verdict():
    clock = Clock(100.0, Progress())
    clock.rate, clock.scoring = 100.0, 5.0
    for seeds, fewest in ((4, 4), (32, FEWEST_SEEDS)):
        plan = replace(PLAN, verdict_seeds=seeds)
        verdict = (2 + 5) * fewest * (20 + 2 * 5) / 100.0
        assert clock.race_end(plan) == pytest.approx(90.0 - verdict, abs=0.1)
        assert clock.affords(int(100 * (89.5 - verdict)), plan)
        assert not clock.affords(int(100 * (90.5 - verdict)), plan)
    for seeds, most in ((4, FEWEST_SEEDS), (32, 32)):
        plan, left = replace(PLAN, verdict_seeds=seeds), 90.0 - (2 + 5) * most * (20 + 2 * 5) / 100.0
        assert clock.refines(1, int(100 * (left - 0.5)), plan), "again, where that leaves time for a verdict that tells"
        assert not clock.refines(1, int(100 * (left + 0.5)), plan)
        assert clock.refines(0, int(100 * (left + 0.5)), plan), "the first time"
    assert not Clock(None, Progress()).refines(1, 1, plan), "without a budget once"
    assert Clock(None, Progress()).race_end(plan) == float("inf")


# a race that is cut short


class Cut(Table):
    """Has no time for trainings of some length."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def train(self, configs, seeds, steps, **rest):
        if steps == self.steps:
            raise OutOfTime
        return super().train(configs, seeds, steps, **rest)


def run_race(table, tmp_path):
    clock, seeds = Clock(None, Progress()), iter(range(1000))
    record = Record(open_storage(str(tmp_path / "j")), "s", SMALL, {}, resume=False)
    runner = Race(table, record, {"default": [SMALL.default], "adamw": [SMALL.plain]}, clock)
    grid = Grid(SMALL.arms(256, 0), lr_grid(1e-2, 1e-1))
    return clock, runner.run(grid, PLAN, lambda n: [next(seeds) for _ in range(n)])


def test_a_round_that_is_cut_short_counts_for_nothing(tmp_path):
    clock, finalists = run_race(Cut(20), tmp_path)
    assert next(iter(finalists)) == SMALL.arm(["lookahead"]), "the first round stands"
    assert {SMALL.default, SMALL.plain} <= set(finalists)
    assert [rung["steps"] for rung in clock.rounds] == [10]


def test_without_a_first_round_there_are_no_finalists(tmp_path):
    with pytest.raises(OutOfTime):
        run_race(Cut(10), tmp_path)


# searches


def without_comparison(outcome, storage, steps):
    """What every search without a comparison says, and what its study says."""
    evidence = outcome.evidence
    assert outcome.config.components.keys() == SMALL.default.components.keys()
    assert outcome.default_kept
    assert "no time for a comparison" in evidence.verdict
    assert evidence.comparison is None
    (finalist,) = outcome.finalists
    assert finalist.against_default is finalist.against_adamw is None
    sweep, (rung,) = evidence.sweep, evidence.plan.rungs
    assert (rung.steps, evidence.plan.steps) == (steps, steps)
    assert {0.01, 0.03, 0.1} <= set(sweep.lrs)
    assert outcome.config.lr == sweep.lrs[int(np.argmax(sweep.valid))]
    study = optuna.load_study(study_name="s", storage=storage)
    assert SMALL.config(study.best_params) == replace(outcome.config, proxy={})
    assert study.best_value == pytest.approx(max(sweep.valid))


def test_a_budget_too_short_for_a_comparison_gives_the_default_with_a_swept_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(Clock, "affordable", 0.0)
    monkeypatch.setattr(Clock, "utmost", 0.0)
    storage = open_storage(str(tmp_path / "j"))
    outcome = search(toy.Toy(), storage, "s", space=SMALL, budget=60.0)
    without_comparison(outcome, storage, 12)
    assert outcome.evidence.sweep.needed > 0


@pytest.mark.parametrize("at", ["first round", "verdict"])
def test_a_comparison_that_is_not_finished_is_none(at, tmp_path, monkeypatch):
    trained = Population.train

    def train(self, configs, seeds, steps, **rest):
        if (at == "verdict" and "test" in rest.get("splits", ())) or (at == "first round" and steps == 6):
            raise OutOfTime
        return trained(self, configs, seeds, steps, **rest)

    monkeypatch.setattr(Population, "train", train)
    storage = open_storage(str(tmp_path / "j"))
    plan = Plan(arms=8, rungs=(Rung(6, 1, 4, 99), Rung(12, 2, 2, 3)), verdict_seeds=4, steps=12)
    outcome = search(toy.Toy(), storage, "s", space=SMALL, budget=60.0, plan=plan)
    without_comparison(outcome, storage, 12)


@pytest.mark.filterwarnings("ignore:torch.func.vmap refuses")
def test_a_budget_binds_where_models_train_one_by_one(tmp_path):
    storage, begin = open_storage(str(tmp_path / "j")), time.monotonic()
    outcome = search(Slow(), storage, "s", space=SMALL, budget=4.0)
    assert time.monotonic() - begin < 4.0 + 2.0
    assert outcome.seconds < 4.0 + 0.5
    assert outcome.evidence.plan.steps == 12


class Checked(toy.Toy):
    """A model that takes a while wherever it is called."""

    def data(self):
        time.sleep(0.5)
        return super().data()


def test_the_checks_of_a_task_are_part_of_a_budget(tmp_path):
    outcome = search(Checked(), open_storage(str(tmp_path / "j")), "s", space=SMALL, plan=PLAN, budget=60.0)
    assert outcome.seconds > 0.5


def test_a_verdict_takes_more_seeds_while_there_is_time(tmp_path):
    """The more seeds are those that follow, so that a resumed verdict is on the same ones."""
    storage, told = open_storage(str(tmp_path / "j")), []

    class Told(Progress):
        def verdict(self, candidates, seeds, *, work):
            told.append(seeds)

        def limit(self, seconds):
            told.append(seconds)

    whole = search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, budget=60.0, progress=Told())
    assert told[0] == pytest.approx(60.0, abs=0.1)
    assert told[1:] == [PLAN.verdict_seeds * n for n in (1, 2, 4, 8)]
    comparison, noted = whole.evidence.comparison, optuna.load_study(study_name="s", storage=storage).user_attrs
    first, last = comparison.seeds
    assert last - first + 1 == noted["verdict"]["seeds"] == 8 * PLAN.verdict_seeds
    assert {len(r["scores"]["valid"]) for r in noted["verdict"]["results"]} == {8 * PLAN.verdict_seeds}


def test_a_verdict_that_gets_no_more_time_stands_as_it_was(tmp_path, monkeypatch):
    trained, calls = Population.train, []

    def train(self, configs, seeds, steps, *, splits=("valid",), **rest):
        calls.extend([len(seeds)] if "test" in splits else [])
        if len(calls) == 2:
            raise OutOfTime
        return trained(self, configs, seeds, steps, splits=splits, **rest)

    monkeypatch.setattr(Population, "train", train)
    outcome = search(toy.Toy(), open_storage(str(tmp_path / "j")), "s", space=SMALL, plan=PLAN, budget=60.0)
    assert outcome.finalists[0].against_default.seeds == PLAN.verdict_seeds


def test_the_smallest_plan_is_tried_without_a_reserve(tmp_path, monkeypatch):
    monkeypatch.setattr(Clock, "affordable", 0.0)
    monkeypatch.setattr(Clock, "utmost", 1e6)
    outcome = search(toy.Toy(), open_storage(str(tmp_path / "j")), "s", space=SMALL, budget=60.0)
    assert outcome.evidence.comparison is not None
    assert outcome.evidence.plan.arms == ladder(12)[0].arms


def test_the_time_left_is_that_of_the_work_or_of_the_budget():
    bar = rich.progress.Progress(left := TimeLeft())
    bar.add_task("", total=None)
    (task,) = bar.tasks
    assert left.render(task).plain == "-:--:--"
    left.end = time.monotonic() + 90.4
    assert left.render(task).plain in ("0:01:30", "0:01:29")
    task.total = 100.0
    bar.advance(task.id, 0)
    left.end = time.monotonic() - 5
    assert left.render(task).plain == "0:00:00"


def test_no_budget_makes_trainings_shorter_than_the_tasks(tmp_path, monkeypatch):
    lengths, trained = set[int](), Population.train

    def train(self, configs, seeds, steps, *, splits=("valid",), **rest):
        if "test" in splits:
            lengths.add(steps)
        return trained(self, configs, seeds, steps, splits=splits, **rest)

    monkeypatch.setattr(Population, "train", train)
    monkeypatch.setattr("autoranger.search.clock.MOST_SEEDS", 1)
    for number, affordable in enumerate((1e3, 1e4, 2e5)):
        monkeypatch.setattr(Clock, "affordable", affordable)
        search(toy.Toy(), open_storage(str(tmp_path / "j")), str(number), space=SMALL, budget=30.0)
    assert lengths == {12}


def test_a_verdict_is_on_seeds_that_nothing_else_has_seen(tmp_path, monkeypatch):
    """With a sweep and a look at the metric before the race; and test data are touched once, in the verdict."""
    seen, fresh, order, trained = set[int](), [], [], Population.train

    def train(self, configs, seeds, steps, *, splits=("valid",), **rest):
        order.append(tuple(splits))
        fresh.append(list(seeds)) if "test" in splits else seen.update(seeds)
        return trained(self, configs, seeds, steps, splits=splits, **rest)

    monkeypatch.setattr(Population, "train", train)
    outcome = search(toy.Toy(), open_storage(str(tmp_path / "j")), "s", space=SMALL, plan=PLAN, budget=60.0)
    verdict = [seed for seeds in fresh for seed in seeds]
    assert len(set(verdict)) == len(verdict) == outcome.finalists[0].against_default.seeds
    assert not set(verdict) & (seen - {0}), "0 is what the speed is measured with"
    assert 0 not in verdict
    assert order.index(("valid", "test")) == len(order) - len(fresh)
    assert outcome.evidence.comparison.seeds == (verdict[0], verdict[-1])


def test_a_default_that_diverges_in_the_end_is_not_exported(tmp_path, monkeypatch):
    trained = Population.train

    def train(self, configs, seeds, steps, *, splits=("valid",), report=lambda configs, scores: None, **rest):
        def diverged(scores):
            return {name: np.full_like(v, np.nan) for name, v in scores.items()} if "test" in splits else scores

        def told(part, scores):
            report(part, diverged(scores))

        return diverged(trained(self, configs, seeds, steps, splits=splits, report=told, **rest))

    monkeypatch.setattr(Population, "train", train)
    storage = open_storage(str(tmp_path / "j"))
    with pytest.raises(SearchError, match="diverged on the fresh seeds, and nothing beats it"):
        search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN)
    assert "outcome" not in optuna.load_study(study_name="s", storage=storage).user_attrs


# the metric


class Squares(toy.Toy):
    """A regression whose metric is its error: the wrong way round, and large where a rate is too high."""

    steps = 60
    lr_range = (1e-3, 10.0)

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(400, 4, generator=generator)
        y = x[:, :2] + x[:, 2:] ** 2
        return {"train": (x[:200], y[:200]), "valid": (x[200:300], y[200:300]), "test": (x[300:], y[300:])}

    def loss(self, output, target):
        return F.mse_loss(output, target)

    def metric(self, output, target):
        return F.mse_loss(output, target)


class Right(Squares):
    def metric(self, output, target):
        return -F.mse_loss(output, target)


class Noise(Squares):
    """A metric that has nothing to do with the loss."""

    def metric(self, output, target):
        return torch.sin(1e4 * output.sum())


def look(task):
    seeds = iter(range(100))
    check_metric(
        Population(task), Config(), lr_grid(*task.lr_range), task.steps, lambda n: [next(seeds) for _ in range(n)]
    )


def test_a_metric_where_lower_is_better_is_caught():
    with pytest.raises(ConfigError, match=r"makes the loss better and the metric worse.* mean of 8 seeds.*minimize"):
        look(Squares())


@pytest.mark.parametrize("task", [Right, Noise, toy.Toy, toy.Normalized])
def test_other_metrics_are_left_alone(task):
    look(task())


def test_a_wrong_metric_ends_a_search_before_it_begins(autoranger):
    code, out, err = autoranger("search", "--task", "mine.py:Wrong", "--study", "s")
    assert (code, out) == (2, "")
    assert 'should its direction be "minimize"?' in err
    assert not Path("tuned.toml").exists()
    assert not optuna.load_study(study_name="s", storage=open_storage(None)).trials
    assert autoranger("search", "--task", "mine.py:Wrong", "--study", "s", "--resume")[0] == 2, "it is asked again"


# the command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["mine.py:Diverging", "--space", "ranger21", "--sampler", "random"], "failed, with learning rates from"),
        (["mine.py:Mine", "--budget", "0.01s"], "give it a --budget of"),
    ],
)
def test_a_failure_is_a_failure(options, words, autoranger):
    code, out, err = autoranger("search", "--study", "s", "--task", *options)
    assert (code, out) == (1, "")
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert not Path("tuned.toml").exists()
    code, out, _ = autoranger("report", "s")
    assert code == 0
    assert "This search failed: " in out


def test_a_command_without_time_says_what_it_exports(autoranger, monkeypatch):
    monkeypatch.setattr(Clock, "affordable", 0.0)
    monkeypatch.setattr(Clock, "utmost", 0.0)
    code, out, err = autoranger("search", "--task", "mine.py:Mine", "--study", "s", "--budget", "60s")
    assert code == 0, err
    words = ("no time for a comparison", "ranger21 with lr", "in trainings of 4 steps on 2 seeds", "--budget")
    assert all(word in out for word in words)
    assert "against ranger21" not in out
    assert "What each component contributes" not in out
    assert "beats full Ranger21 by" not in out
    assert len(Config.load("tuned.toml").components) == len(Space().components)
    assert "no time for a comparison" in Path("tuned.toml").read_text()
    for command in (["show", "tuned.toml"], ["report", "s"]):
        code, out, err = autoranger(*command)
        assert code == 0, err
        assert "no time for a comparison" in out
        assert "4 steps" in out
    document = json.loads(autoranger("report", "s", "--json")[1])
    assert document["finalists"][0]["exported"]


def test_trials_of_a_search_have_values_and_times_and_lead_to_the_export(tmp_path):
    """Also with a verdict in which others look better."""
    storage = open_storage(str(tmp_path / "j"))
    for seed in range(3):
        outcome = search(toy.Toy(), storage, str(seed), space=SMALL, plan=PLAN, seed=seed)
        study = optuna.load_study(study_name=str(seed), storage=storage)
        assert SMALL.config(study.best_params) == replace(outcome.config, proxy={})
        assert study.best_value == pytest.approx(outcome.evidence.comparison.valid)
        values = {repr(SMALL.config(t.params)): t.value for t in study.trials}
        for finalist in outcome.finalists:
            config = replace(Config.from_dict(finalist.config), proxy={})  # which is no parameter of a trial
            assert values[repr(config)] == pytest.approx(finalist.valid)
        states = [t.state for t in study.trials]
        assert states.count(TrialState.COMPLETE) > len(states) / 2
        assert all(t.duration.total_seconds() > 0 for t in study.trials)

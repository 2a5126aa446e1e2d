"""What a search may maximise, and what it may weigh against it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch

from autoranger import Config
from autoranger.components.core.chain import state_per_number
from autoranger.components.core.component import registry
from autoranger.components.core.errors import ConfigError
from autoranger.components.core.reference import extra_bytes
from autoranger.components.presets import PRESETS
from autoranger.search.clock import Clock
from autoranger.search.cost import Cost, memory, step_time
from autoranger.search.population import Population
from autoranger.search.progress import Progress
from autoranger.search.race.baselines import families
from autoranger.search.race.objectives import POINTS, Reaching, steps_to, with_objective
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.race.race import Grid, Race, pareto
from autoranger.search.space import Space, lr_grid
from autoranger.search.storage.record import Record
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from autoranger.search.verdict.evidence import judge
from tests import toy
from tests.test_search import PLAN, SMALL, Table

CONFIGS = [Config(lr=0.03), Config.preset("ranger21", lr=0.03), Config(lr=0.1, components={"lookahead": {}})]


class Accurate(toy.Toy):
    """The toy by accuracy, so that metric and loss differ."""

    metric_name = "accuracy"
    metric = toy.Task.metric


class Curves:
    """Looks like a population whose trainings have these validation curves."""

    def __init__(self, curves: list[list[float]]) -> None:
        self.curves = np.array(curves)[:, None, :]

    def train(self, configs, seeds, steps, *, splits, curve, report):
        assert curve == self.curves.shape[-1]
        scores = {"curve": self.curves, **dict.fromkeys(splits, self.curves[..., -1])}
        report(configs, scores)
        return scores


def test_the_loss_is_the_loss_of_the_same_trainings():
    task, trained_for = with_objective(Accurate(), "loss")
    mine = trained_for(Population(task)).train(CONFIGS, [0, 1], 12)["valid"]
    theirs = Population(toy.Toy()).train(CONFIGS, [0, 1], 12)["valid"]  # whose metric is minus torch's cross entropy
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert (task.metric_name, task.score_name, task.direction) == ("loss", "minus loss", "minimize")
    assert Accurate().metric_name == "accuracy"


def test_steps_to_a_target_are_read_off_a_straight_line():
    """Against numpy's interpolation, on rising curves."""
    rng = np.random.default_rng(0)
    curves = np.cumsum(rng.random((6, 3, 10)), axis=-1)
    targets = curves[..., 2] + 0.3
    for k, s in np.ndindex(6, 3):
        expected = np.interp(targets[k, s], curves[k, s], np.arange(1, 11) * 7)
        assert steps_to(targets[k, s], curves[k : k + 1, s : s + 1], 70)[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("curve", "steps"),
    [
        ([0.1, 0.3, 0.5, 0.7], 75),
        ([0.6, 0.7, 0.8, 0.9], 25),  # before the first look nothing is known
        ([0.1, 0.6, 0.2, 0.2], 45),  # the first time counts
        ([0.1, 0.2, 0.3, 0.4], 120),  # 0.1 of 0.5 is missing
        ([0.1, 0.1, 0.1, 0.1], 180),
        ([0.6, 0.7, np.nan, np.nan], np.nan),
    ],
)
def test_steps_to_a_target(curve, steps):
    assert steps_to(0.5, np.array([[curve]]), 100)[0, 0] == pytest.approx(steps, nan_ok=True)


def test_a_population_that_is_to_reach_something_is_scored_by_its_curves():
    fast, slow = np.linspace(0.2, 1.0, POINTS), np.linspace(0.0, 0.6, POINTS)
    told = []
    scores = Reaching(
        Curves([fast, slow]), 0.5
    ).train(  # type: ignore[arg-type]
        CONFIGS[:2], [0], 100, splits=("valid", "test"), report=lambda part, s: told.append(s)
    )
    assert scores.keys() == {"valid", "test"} == told[0].keys()
    assert scores["test"].tolist() == [[1.0], [0.6]]
    assert 0 > scores["valid"][0, 0] > scores["valid"][1, 0] > -100


def test_a_search_for_speed_says_so(tmp_path):
    outcome = search(Accurate(), open_storage(str(tmp_path / "j")), "s", space=SMALL, plan=PLAN, objective="steps:0.55")
    assert outcome.evidence.settings.metric == "minus steps to accuracy 0.55"
    assert outcome.evidence.settings.objective == "steps:0.55"
    assert all(finalist.valid < 0 < finalist.test <= 1 for finalist in outcome.finalists)


@pytest.mark.parametrize("objective", ["", "accuracy", "steps", "steps:", "steps:x", "steps:nan", "loss:1"])
def test_an_objective_that_there_is_not_is_an_error(objective):
    with pytest.raises(ConfigError, match="must be metric, loss, or steps:VALUE"):
        with_objective(Accurate(), objective)


# costs


@pytest.mark.parametrize("name", PRESETS)
def test_memory_is_what_the_built_optimizer_keeps(name):
    p = torch.nn.Parameter(torch.randn(5, 5))
    p.grad = torch.randn(5, 5)
    optimizer = Config.preset(name).build([p], total_steps=10)
    optimizer.step()
    kept = sum(x.numel() for x in optimizer.state[p].values() if torch.is_tensor(x) and x.dim() > 0)
    assert state_per_number(Config.preset(name)) == kept / p.numel()


def test_the_time_of_a_step_grows_with_what_is_on():
    space = Space(components=("lookahead", "positive_negative_momentum"))
    time = step_time(toy.Toy(), space).of
    assert 0 < time(space.plain) <= time(space.arm(["lookahead"])) <= time(space.default)
    for family in families(space).values():
        assert all(time(arm) >= time(space.plain) for arm in family), "what a baseline has besides has a price, too"


def test_the_pareto_front_is_what_nothing_beats_in_both():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = rng.integers(0, 8, (12, 2))
        every = {(int(v), int(c)) for v, c in points}
        dominated = {(v, c) for v, c in every if any(w >= v and d <= c and (w, d) != (v, c) for w, d in every)}
        assert set(pareto({point: point[0] for point in every}, lambda point: point[1])) == every - dominated
    assert pareto({"good": 0.9, "cheap": -np.inf, "unknown": np.nan}, {"good": 2, "cheap": 1, "unknown": 0}.get) == [
        "good"
    ]


def test_cheap_arms_stay_in_the_race(tmp_path):
    """Every component makes it worse here, and the costliest is the best: only a front keeps the rest."""

    class Reversed(Table):
        def value(self, config, seed):
            return float(len(config.components)) - 0.1 * abs(np.log10(config.lr / 1e-2))

    plan = Plan(arms=8, rungs=(Rung(10, 1, 1, 99), Rung(20, 1, 1, 3)), verdict_seeds=4, steps=20)

    def finalists(cost):
        record = Record(open_storage(str(tmp_path / "j")), str(cost), SMALL, {}, resume=False)
        race = Race(Reversed(best=1e-2), record, {}, Clock(None, Progress()), cost)
        seeds = iter(range(1000))
        found = race.run(Grid(SMALL.arms(8, 0), lr_grid(1e-3, 1e-1)), plan, lambda n: [next(seeds) for _ in range(n)])
        return {len(arm.components) for arm in found}

    assert finalists(None) == {3}
    assert finalists(lambda config: len(config.components)) == {0, 1, 2, 3}


def test_a_front_is_an_ordinary_study_of_two_objectives(tmp_path):
    storage = open_storage(str(tmp_path / "j"))
    outcome = search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, cost=memory())
    study = optuna.load_study(study_name="s-front", storage=storage)
    assert {trial.values[1] for trial in study.trials} == {f.cost for f in outcome.finalists}
    assert {2.0, 3.0} < {f.cost for f in outcome.finalists} <= {2.0, 3.0, 5.0}, "with full Ranger21, which is outside"
    on_front = {repr(replace(Config.from_dict(f.config), proxy={})) for f in outcome.finalists if f.on_front}
    assert {repr(Config.from_dict(trial.user_attrs["config"])) for trial in study.best_trials} == on_front
    assert outcome.evidence.settings.cost == "numbers of state per parameter"


def test_a_front_does_not_take_the_place_of_another_study(tmp_path):
    storage = open_storage(str(tmp_path / "j"))
    optuna.create_study(study_name="s-front", storage=storage)
    with pytest.raises(ConfigError, match="study 's-front' exists, where the front would go"):
        search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, cost=memory())


def test_another_cost_does_not_resume_a_search(tmp_path, monkeypatch):
    storage, prices = open_storage(str(tmp_path / "j")), [memory(), Cost("something else", state_per_number)]
    monkeypatch.setattr("autoranger.search.study.judge", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, cost=prices[0])
    with pytest.raises(ConfigError, match='cost "numbers of state per parameter", not "something else"'):
        search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, cost=prices[1], resume=True)
    monkeypatch.undo()
    search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, cost=prices[0], resume=True)
    assert optuna.load_study(study_name="s-front", storage=storage).trials


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_costs_do_not_decide_the_verdict():
    rng = np.random.default_rng(0)
    configs = [Config(lr=lr) for lr in (0.1, 0.2, 0.3)]
    default = rng.normal(0, 1, 16)
    valid = np.stack([default, default + 1, default - 1])
    roles = {"default": 0, "adamw": 2}
    for sign in (1, -1):
        judged = judge(configs, {"valid": valid, "test": valid}, roles, lambda config, s=sign: s * config.lr)
        assert [config for config, finalist in judged.items() if finalist.exported] == [configs[1]]


@pytest.mark.parametrize("name", registry)
def test_the_bytes_of_a_component_are_what_an_optimizer_keeps(name):
    def kept(**components):
        p = torch.nn.Parameter(torch.randn(5, 5))
        p.grad = torch.randn(5, 5)
        optimizer = Config(components=components).build([p], total_steps=10)
        optimizer.step()
        return sum(x.nbytes for x in optimizer.state[p].values() if torch.is_tensor(x) and x.dim() > 0)

    assert kept(**{name: {}}) - kept() == extra_bytes(registry[name]) * 25


def test_a_target_that_nothing_reaches_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"no training reached 95; the best came to 0\.\d+"):
        search(Accurate(), open_storage(str(tmp_path / "j")), "s", space=SMALL, plan=PLAN, objective="steps:95")

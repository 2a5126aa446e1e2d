"""A first round in which a sampler chooses: what it may propose, what it learns from, and what becomes of the race."""

from __future__ import annotations

import json
import math

import numpy as np
import optuna
import pytest

from autoranger import Config
from autoranger.components.core.component import conflicts
from autoranger.components.core.errors import ConfigError
from autoranger.search.clock import Clock
from autoranger.search.progress import Progress
from autoranger.search.race.baselines import WORDS
from autoranger.search.race.explore import Exploration, Explorer
from autoranger.search.race.plan import ENTRANTS, Plan, Rung
from autoranger.search.race.race import Race, best_lr
from autoranger.search.samplers import SAMPLERS, named
from autoranger.search.space import Space, lr_grid, recorded
from autoranger.search.storage.record import Record
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from tests import toy
from tests.test_search import SMALL, Table

LRS = lr_grid(1e-3, 1e-1)
PLAN = Plan(arms=32, rungs=(Rung(10, 1, 4, 99), Rung(20, 2, 2, 3)), verdict_seeds=4, steps=20)
SPACES = {"subsets": Space(), "extended": Space.extended()}


@pytest.fixture(params=SAMPLERS)
def sampler(request):
    if request.param == "cmaes":
        pytest.importorskip("cmaes", reason="the optional package cmaes is not installed")
    return request.param


def merit(config: Config) -> float:
    return 0.2 * ("lookahead" in config.components) - 0.02 * len(config.components) - abs(math.log10(config.lr) + 2)


@pytest.mark.parametrize("space", SPACES)
def test_proposals_are_new_candidates_of_the_space(sampler, space):
    explorer, seen = Explorer(SPACES[space], LRS, named(sampler, 0), seed=0), set[Config]()
    for _ in range(3):
        asked = explorer.ask(7)
        assert len(asked) == len(set(asked)) == 7
        assert not seen & set(asked)
        assert all(config.lr in LRS and not conflicts(config.components) for config in asked)
        seen |= set(asked)
        explorer.tell({config: merit(config) for config in asked})
    assert explorer.expected().keys() == seen


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("cmaes", "gp")])
def test_a_space_is_proposed_to_its_last_candidate(name):
    space = Space(components=("lookahead", "norm_loss"))
    explorer = Explorer(space, LRS, named(name, 0), seed=0)
    asked = explorer.ask(15)
    explorer.tell({config: merit(config) for config in asked})
    assert len({*asked, *explorer.ask(100)}) == 4 * len(LRS)
    assert len(explorer.ask(1)) == 5, "those that are open, and no more"


def test_the_first_proposals_are_what_is_known_by_name():
    space = Space.extended()
    expected = list(dict.fromkeys(tuple(arm.components) for arm in space.landmarks))
    proven = [tuple(arm.components) for arm in space.proven]
    assert expected[: len(proven)] == proven
    count = len(proven) * len(LRS)
    asked = Explorer(space, LRS, named("random", 0), seed=0).ask(count + len(expected) - len(proven))
    assert [(tuple(config.components), config.lr) for config in asked[:count]] == [
        (n, lr) for n in proven for lr in LRS
    ]
    assert [tuple(config.components) for config in asked[count:]] == expected[len(proven) :]


def test_what_tables_say_of_other_tasks_comes_first():
    """The recorded subsets, as the study that makes the file would write them; in a space that has their components."""
    every = [frozenset(names) for names in recorded()]
    assert len(set(every)) == len(every) == 8
    asked = Explorer(Space(), LRS, named("bayes", 0), seed=0).ask(len(every))
    assert [config.components.keys() for config in asked] == every
    small = Space(("lookahead", "explore_exploit"))
    assert small.landmarks[0] == small.plain, "of none of them all components are there, nor of the default"


def test_two_explorers_with_one_seed_propose_the_same():
    def proposals():
        explorer, asked = Explorer(Space(), LRS, named("bayes", 3), seed=3), []
        for _ in range(3):
            asked += explorer.ask(8)
            explorer.tell({config: merit(config) for config in asked[-8:]})
        return asked

    assert proposals() == proposals()


def test_what_diverged_is_not_expected_to_be_good():
    explorer = Explorer(Space(), LRS, named("bayes", 0), seed=0)
    values = {config: math.nan if config.lr > 0.02 else merit(config) for config in explorer.ask(40)}
    explorer.tell(values)
    assert explorer.expected().keys() == {config for config, value in values.items() if math.isfinite(value)}
    later = explorer.ask(20)
    assert sum(config.lr > 0.02 for config in later) < 5


def test_a_model_looks_through_the_noise():
    """The best of noisy values is a lucky one; what is expected is nearer to the truth."""
    rng, luck, model = np.random.default_rng(0), [], []
    for seed in range(6):
        explorer = Explorer(Space(), LRS, named("bayes", seed), seed=seed)
        values: dict[Config, float] = {}
        for _ in range(3):
            asked = explorer.ask(20)
            told = {config: merit(config) + 0.1 * rng.standard_normal() for config in asked}
            explorer.tell(told)
            values |= told
        expected = explorer.expected()
        luck.append(merit(max(values, key=values.__getitem__)))
        model.append(merit(max(expected, key=expected.__getitem__)))
    assert np.mean(model) > np.mean(luck)


def explore(table: Table, record: Record, sampler: str = "bayes", seed: int = 0):
    seeds = iter(range(10_000))
    runner = Race(table, record, {"default": [Space().default], "adamw": [Space().plain]}, Clock(None, Progress()))
    opening = Exploration(Space(), LRS, named(sampler, seed), PLAN.arms, seed)
    return runner, runner.run(opening, PLAN, lambda n: [next(seeds) for _ in range(n)])


@pytest.fixture
def journal(tmp_path):
    return open_storage(str(tmp_path / "journal"))


def test_a_race_goes_on_with_what_a_sampler_found(journal):
    table = Table(best=1e-2)
    runner, finalists = explore(table, Record(journal, "s", Space(), {}, resume=False))
    first = [config for configs, _, steps in table.calls if steps == 10 for config in configs]
    assert len(first) == len(set(first)) <= 32 * len(LRS), "each is trained once, half of them by chance"
    assert {seed for _, seeds, steps in table.calls if steps == 10 for seed in seeds} == {0}
    for arm in (Space().default, Space().plain):
        assert {config.lr for config in first if config.components == arm.components} == set(LRS), "swept like a grid"
    leader = next(iter(finalists))
    assert "lookahead" in leader.components
    assert best_lr(finalists[leader]) == 1e-2
    assert set(runner.protected) == {"default", "adamw", "random"}
    assert set(runner.protected.values()) <= set(finalists)


def test_the_random_baseline_is_the_best_of_the_random_half(journal):
    table = Table(best=1e-2)
    opening = Exploration(Space(), LRS, named("bayes", 0), PLAN.arms, 0)
    runner = Race(table, Record(journal, "s", Space(), {}, resume=False), {}, Clock(None, Progress()))
    opening(runner, PLAN, [0])
    arm = runner.protected["random"]
    drawn = opening.random(PLAN.arms * len(LRS) // 2)
    assert len(set(drawn)) == 80
    assert arm.components == max(drawn, key=lambda config: table.value(config, 0)).components


def test_the_rates_of_leaders_do_not_end_on_an_edge(journal):
    """Also where no round follows in which they could go further."""
    plan = Plan(arms=32, rungs=(Rung(10, 1, 4, 99),), verdict_seeds=4, steps=10)
    runner = Race(
        Table(best=1.0),
        Record(journal, "s", Space(), {}, resume=False),
        {"a": [Space().plain]},
        Clock(None, Progress()),
    )
    seeds = iter(range(100))
    found = runner.run(
        Exploration(Space(), LRS, named("bayes", 0), 32, 0), plan, lambda n: [next(seeds) for _ in range(n)]
    )
    assert [best_lr(by_lr) for by_lr in found.values()] == [1.0] * len(found)


def test_an_exploration_resumes_without_training_again(tmp_path):
    path = str(tmp_path / "journal")
    record = Record(open_storage(path), "s", Space(), {}, resume=False)
    _, before = explore(Table(noise=0.1), record)
    record.close()
    table = Table(noise=0.1)
    _, after = explore(table, Record(open_storage(path), "s", Space(), {}, resume=True))
    assert not [configs for configs, _, _ in table.calls if configs]
    assert list(after) == list(before)


@pytest.mark.parametrize("chooser", ["tpe", optuna.samplers.RandomSampler(seed=0)], ids=["by name", "a sampler"])
def test_a_search_can_be_led_by_any_sampler(tmp_path, chooser):
    storage = open_storage(str(tmp_path / "j"))
    outcome = search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, sampler=chooser)
    roles = {role for finalist in outcome.finalists for role in finalist.roles}
    assert roles == set(WORDS) == outcome.evidence.comparison.baselines.keys()
    attrs = optuna.load_study(study_name="s", storage=storage).user_attrs
    assert attrs["settings"]["sampler"] == (chooser if isinstance(chooser, str) else "RandomSampler")
    assert [f["config"]["lr"] for f in attrs["finalists"]] == [f.lr for f in outcome.finalists]
    assert attrs["spent"]["work"] == outcome.work
    assert [r["steps"] for r in attrs["spent"]["rounds"]] == [10, 20]
    json.dumps(attrs, allow_nan=False)


def test_without_a_word_small_spaces_are_listed_and_large_ones_explored(tmp_path):
    def trained_first(space: Space) -> int:
        name = str(len(space.components))
        storage = open_storage(str(tmp_path / name))
        search(toy.Toy(), storage, name, space=space, plan=PLAN)
        return optuna.load_study(study_name=name, storage=storage).user_attrs["spent"]["rounds"][0]["candidates"]

    rates = len(lr_grid(*toy.Toy.lr_range))
    assert trained_first(SMALL) == (8 + ENTRANTS) * rates
    assert trained_first(Space()) == (PLAN.arms + ENTRANTS) * rates


def test_a_sampler_that_there_is_not_is_said_before_anything_is_done(tmp_path):
    with pytest.raises(ConfigError, match="unknown sampler 'bayess'; did you mean 'bayes'"):
        search(toy.Toy(), open_storage(str(tmp_path / "j")), "s", sampler="bayess")
    assert not optuna.get_all_study_names(open_storage(str(tmp_path / "j")))


def test_another_sampler_does_not_resume_a_search(tmp_path):
    storage = open_storage(str(tmp_path / "j"))
    search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, sampler="random")
    with pytest.raises(ConfigError, match="other settings"):
        search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, sampler="tpe", resume=True)

"""The refinement of the leaders' numbers: where it looks, what it trains, and what becomes a finalist."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import optuna
import pytest
import torch

from autoranger import Config
from autoranger.components.core.component import registry
from autoranger.report.sentences import finalist_name
from autoranger.search.clock import Clock, OutOfTime
from autoranger.search.numbers import unusual, with_numbers
from autoranger.search.progress import Progress
from autoranger.search.race.baselines import families
from autoranger.search.race.compete import compete
from autoranger.search.race.plan import Plan, Refinement, Rung, ladder, make_plan
from autoranger.search.race.race import Grid, Race
from autoranger.search.ranges import ranges, variant
from autoranger.search.storage.record import Record
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from tests import toy
from tests.test_search import SMALL, Table

PLAN = Plan(8, (Rung(10, 1, 4, 99), Rung(20, 2, 2, 3)), 4, 20, Refinement(leaders=2, draws=6, seeds=2, keep=3, more=2))


# ranges


@pytest.mark.parametrize("name", registry)
def test_what_is_drawn_lies_in_the_declared_ranges(name):
    component, rng, seen = registry[name], np.random.default_rng(0), set[str]()
    leader = Config(lr=0.03, components={name: {}})
    for _ in range(60):
        drawn = variant(leader, 100, rng)  # invalid numbers would be an error
        assert drawn.components.keys() == leader.components.keys()
        assert 0.03 / 1.8 <= drawn.lr <= 0.03 * 1.8
        changed = unusual(drawn.to_dict(), leader)
        seen |= changed.keys()
        for key in changed.keys() - {"weight_decay", "beta1", "beta2"}:
            hyper = component.hypers[key.removeprefix(f"{name}.")]
            assert hyper.low * 0.99 <= changed[key] <= hyper.high * 1.01
        assert 0.66 <= drawn.betas[0] <= 0.97
        assert 0.9 <= drawn.betas[1] <= 0.999
    declared = {f"{name}.{key}" for key, hyper in component.hypers.items() if hyper.low is not None}
    assert declared <= seen, "each is drawn now and then"


@pytest.mark.parametrize("name", registry)
def test_the_ends_of_a_range_are_valid_however_they_are_rounded(name):
    leader = Config(lr=0.03, components={name: {}})
    for share in (0.0, 0.004, 0.5, 0.996, 1.0):
        drawn = {key: found.at(share) for key, found in ranges(leader, 100).items() if key != "lr"}
        with_numbers(leader, drawn)  # invalid numbers would be an error


def test_a_number_keeps_to_its_scale():
    found = ranges(Config(components={"lookahead": {}, "adaptive_gradient_clipping": {}}), 100)
    assert [found["adaptive_gradient_clipping.clip"].at(u) for u in (0, 0.5, 1)] == [0.001, 0.01, 0.1]
    assert [found["lookahead.alpha"].at(u) for u in (0, 0.5, 1)] == [0.2, 0.55, 0.9]
    assert [found["lookahead.k"].at(u) for u in (0, 0.5, 1)] == [2, 6, 20]
    assert [found["beta2"].at(u) for u in (0, 0.5, 1)] == [0.9, 0.99, 0.999]


@pytest.mark.parametrize(
    ("components", "unit"),
    [((), 1.0), (("lookahead",), 1.0), (("stable_weight_decay", "norm_loss"), 0.01), (("l2_decay",), 0.01)],
)
def test_the_range_of_the_decay_belongs_to_the_subset(components, unit):
    """The part of the weights that a training at a constant rate takes away, e^-ηλT, is the same wherever it is."""
    for lr, steps in ((0.01, 300), (0.3, 1000)):
        found = ranges(Config(lr=lr, components=dict.fromkeys(components, True)), steps)["weight_decay"]
        low, high = (math.exp(-lr * decay * steps / unit) for decay in (found.low, found.high))
        assert low == pytest.approx(math.exp(-0.03))
        assert high == pytest.approx(math.exp(-10))


def test_where_nothing_decays_there_is_no_decay_to_look_for():
    assert "weight_decay" not in ranges(Config(components={"hyperball": {}}), 100)


def test_stable_decay_changes_the_unit_by_the_gradients_size():
    """In a step of the optimizer; the component's `decay_unit` is for gradients of a hundredth."""

    def decayed(config: Config, scale: float) -> float:
        weight = torch.nn.Parameter(torch.full((4, 4), 5.0, dtype=torch.float64))
        weight.grad = torch.tensor([0.01, -0.01] * 8, dtype=torch.float64).view(4, 4) * scale
        config.build([weight], compile=False).step()
        return 5 - weight.detach().mean().item()

    unit = registry["stable_weight_decay"].decay_unit
    stable = Config(lr=0.1, weight_decay=0.1 * unit, components={"stable_weight_decay": {}})
    for scale in (1.0, 100.0):
        assert decayed(stable, scale) == pytest.approx(decayed(Config(lr=0.1, weight_decay=0.1), scale) / scale)


# plans


def test_a_plan_counts_what_it_refines():
    without = replace(PLAN, refine=None)
    trainings = 2 * (1 + 6) * 2 + (2 + 3) * 2
    assert PLAN.refine.trainings == trainings
    assert PLAN.cost(8, 5) - without.cost(8, 5) == trainings * 20 + 2 * 4 * 20, "and two finalists more"
    assert PLAN.finalists == without.finalists + 2 == 2 + 2 + 5
    assert [plan.refine is not None for plan in ladder(100)] == [plan.arms >= 32 for plan in ladder(100)]


# races


class Alike(Table):
    """In which numbers make no difference, and rates beside the best one are worse."""

    def train(self, configs, seeds, steps, *, curve=0, among=(), **rest):
        return super().train(configs, seeds, steps, **rest)


class Decaying(Alike):
    """Every subset is better by up to 0.3 with a weight decay such that ηλT is about 0.5."""

    def value(self, config, seed):
        decayed = max(config.lr * config.weight_decay * 20, 1e-12)
        return super().value(config, seed) + 0.3 * math.exp(-(math.log10(decayed / 0.5) ** 2))


def run(table, record, plan=PLAN, clock=None):
    seeds = iter(range(10_000))
    race = Race(table, record, families(SMALL), clock or Clock(None, Progress()))
    return compete(race, Grid(SMALL.arms(256, 0), [1e-2, 1e-1]), plan, lambda n: [next(seeds) for _ in range(n)])


@pytest.fixture
def record(tmp_path):
    return Record(open_storage(str(tmp_path / "j")), "s", SMALL, {}, resume=False)


def test_a_better_variant_of_a_leader_is_a_finalist_beside_it(record):
    table = Decaying()
    finals = run(table, record)
    varied = [c for i, c in enumerate(finals.configs) if c not in SMALL and i not in finals.roles.values()]
    assert 1 <= len(varied) <= 2
    assert all(replace(SMALL.arm(c.components), lr=c.lr) in SMALL for c in varied)
    assert any(c.components.keys() == {"lookahead"} and 0.03 < c.lr * c.weight_decay * 20 < 10 for c in varied)
    assert SMALL.arm(["lookahead"]) in [replace(c, lr=1e-3) for c in finals.configs], "the leader as it is, too"
    trained = [(len(configs), seeds) for configs, seeds, _ in table.calls]
    assert (2 * 7, [3, 4]) in trained, "leaders and variants on new seeds"
    assert (2 + 3, [5, 6]) in trained
    assert finals.seeds == [7, 8, 9, 10]
    best = next(c for c in varied if c.components.keys() == {"lookahead"})
    leader = next(c for c in finals.configs if c in SMALL and c.components.keys() == {"lookahead"})
    seen = [c for configs, _, _ in table.calls for c in configs if c in SMALL]
    rates = {c.lr for c in seen if c.components.keys() == {"lookahead"}}
    assert record.tried(leader) == len(rates)
    assert record.tried(best) == len(rates) + 6


def test_with_time_left_it_goes_on_from_the_best_so_far(tmp_path, monkeypatch):
    """And a resumed search refines as often as the one that it goes on with, whatever time it has."""
    path, clock = str(tmp_path / "j"), Clock(None, Progress())
    monkeypatch.setattr(clock, "refines", lambda rounds, work, plan: rounds < 4)
    table = Decaying()
    record = Record(open_storage(path), "s", SMALL, {}, resume=False)
    finals = run(table, record, clock=clock)
    record.close()
    varied = [c for i, c in enumerate(finals.configs) if c not in SMALL and i not in finals.roles.values()]
    assert len(varied) <= 2, "one for each leader, however often"
    rounds = [configs for configs, seeds, _ in table.calls if len(configs) > 10 and seeds[0] >= 3]
    assert len(rounds) == 4
    starts = [set(configs[:2]) for configs in rounds]
    assert any(a != b for a, b in pairwise(starts)), "from what was found before"
    once = run(Decaying(), Record(open_storage(path), "t", SMALL, {}, resume=False))
    best, first = (
        max(Decaying(noise=0.0).value(c, 0) for c in found.configs if c.components.keys() == {"lookahead"})
        for found in (finals, once)
    )
    assert best >= first
    again = run(table := Decaying(), Record(open_storage(path), "s", SMALL, {}, resume=True))
    assert not [configs for configs, _, _ in table.calls if configs]
    assert again.configs == finals.configs


def test_a_baseline_that_leads_stays_as_published_and_has_variants(record):
    class Scheduled(Decaying):
        """The best of all is AdamW with a warmup and a cosine."""

        def value(self, config, seed):
            return super().value(config, seed) + 2.0 * ("cosine_annealing" in config.components)

    table = Scheduled()
    finals = run(table, record)
    published = finals.configs[finals.roles["adamw_cosine"]]
    assert published == replace(Config.preset("adamw_cosine", weight_decay=published.weight_decay), lr=published.lr)
    assert published.weight_decay in (0.01, 0.1, 1.0)
    varied = [c for i, c in enumerate(finals.configs) if i not in finals.roles.values() and c not in SMALL]
    assert any(c.components.keys() == published.components.keys() for c in varied)


def test_what_is_no_better_than_its_leader_is_no_finalist(record):
    finals = run(Alike(), record)
    assert all(config in SMALL or place in finals.roles.values() for place, config in enumerate(finals.configs))


def test_a_refinement_is_not_trained_again(tmp_path):
    path = str(tmp_path / "j")
    record = Record(open_storage(path), "s", SMALL, {}, resume=False)
    before = run(Decaying(), record)
    record.close()
    table = Decaying()
    after = run(table, Record(open_storage(path), "s", SMALL, {}, resume=True))
    assert not [configs for configs, _, _ in table.calls if configs]
    assert after.configs == before.configs


@pytest.mark.parametrize("cut", ["before", "within"])
def test_without_time_there_is_none(record, monkeypatch, cut):
    class Cut(Decaying):
        def train(self, configs, seeds, steps, **rest):
            if list(seeds) == [5, 6] and cut == "within":
                raise OutOfTime
            return super().train(configs, seeds, steps, **rest)

    said, clock = [], Clock(None, Progress())
    monkeypatch.setattr(clock.listener, "unrefined", lambda: said.append(True))
    if cut == "before":
        refinements = {PLAN.refine.of(leaders).trainings * PLAN.steps for leaders in (1, 2)}
        monkeypatch.setattr(clock, "affords", lambda work, plan: work not in refinements)
    finals = run(Cut(), record, clock=clock)
    assert said == [True]
    assert record.refinements == []
    assert all(config in SMALL or place in finals.roles.values() for place, config in enumerate(finals.configs))


def test_without_time_for_all_leaders_the_best_ones_are_refined(tmp_path, monkeypatch):
    """And a resumed search refines as many, whatever time it has."""
    path, clock = str(tmp_path / "j"), Clock(None, Progress())
    most = PLAN.refine.of(1).trainings * PLAN.steps
    assert most < PLAN.refine.trainings * PLAN.steps / 1.9
    monkeypatch.setattr(clock, "refines", lambda rounds, work, plan: work <= most and rounds < 3)
    table, record = Decaying(), Record(open_storage(path), "s", SMALL, {}, resume=False)
    finals = run(table, record, clock=clock)
    record.close()
    sizes = [len(configs) for configs, seeds, _ in table.calls if 3 <= seeds[0] < finals.seeds[0]]
    assert max(sizes[::2]) == 1 + 6, "one leader with its variants"
    assert sizes[1::2] == [1 + 1] * 3, "and then with the best of them"
    varied = [c for i, c in enumerate(finals.configs) if c not in SMALL and i not in finals.roles.values()]
    assert [set(c.components) for c in varied] == [{"lookahead"}]
    again = run(table := Decaying(), Record(open_storage(path), "s", SMALL, {}, resume=True))
    assert not [configs for configs, _, _ in table.calls if configs]
    assert again.configs == finals.configs


def test_the_evidence_has_the_refinement_as_it_was(tmp_path, monkeypatch):
    most = PLAN.refine.of(1).trainings * PLAN.steps
    monkeypatch.setattr(Clock, "refines", lambda self, rounds, work, plan: work <= most and not rounds)
    outcome = search(toy.Toy(), open_storage(str(tmp_path / "j")), "s", space=SMALL, plan=PLAN)
    assert outcome.evidence.plan.refine == Refinement(leaders=1, draws=6, seeds=2, keep=1, more=2)
    monkeypatch.setattr(Clock, "refines", lambda self, rounds, work, plan: False)
    outcome = search(toy.Toy(), open_storage(str(tmp_path / "j")), "t", space=SMALL, plan=PLAN)
    assert outcome.evidence.plan.refine is None


# searches


def test_a_search_refines_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("autoranger.search.race.refine.ERRORS", -100.0)  # so that the best variants are finalists
    storage = open_storage(str(tmp_path / "j"))
    outcome = search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN)
    refined = [f for f in outcome.finalists if not f.roles and unusual(f.config)]
    assert refined
    assert outcome.evidence.plan.refine == PLAN.refine
    assert outcome.evidence.settings.refine
    assert all(f"{name} {value}" in finalist_name(refined[0]) for name, value in unusual(refined[0].config).items())
    study = optuna.load_study(study_name="s", storage=storage)
    assert {SMALL.config(t.params) for t in study.trials} == {
        Config.from_dict(t.user_attrs["config"]) for t in study.trials
    }
    assert all(f.trials for f in outcome.finalists)
    assert study.user_attrs["spent"]["work"] == outcome.work


def test_no_refinement_if_it_is_not_wanted(tmp_path):
    storage = open_storage(str(tmp_path / "j"))
    outcome = search(toy.Toy(), storage, "s", space=SMALL, plan=PLAN, refine=False)
    assert outcome.evidence.plan.refine is None
    assert not outcome.evidence.settings.refine
    assert not [f for f in outcome.finalists if not f.roles and unusual(f.config)]
    assert make_plan(300).refine is not None

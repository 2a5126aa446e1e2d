"""Attribution against brute force, its axioms, and the coverage of its intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from autoranger.components.core.errors import ConfigError
from autoranger.search.attribution import attribute, from_sample, from_study, from_table
from autoranger.search.attribution.sample import Sample
from autoranger.search.attribution.seeds import between_seeds
from autoranger.search.attribution.table import Table
from autoranger.search.race.rounds import Round
from autoranger.search.samplers import named

NAMES = ("a", "b", "c", "d")


def game(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=16)


def made(worth: np.ndarray, names=NAMES):
    return attribute(names, worth, np.stack([worth, worth]), 1.96)


def number(players) -> int:
    return sum(1 << i for i in players)


def table(noise: float, seed: int, seeds: int = 6) -> Table:
    """Worth 0.5 + 0.1·a − 0.05·b + 0.04·a·b at the better of two rates, which for a is the other one."""
    rng = np.random.default_rng(seed)
    curves = np.zeros((8, 2, seeds, 1, 1))
    for n in range(8):
        a, b = n & 1, n >> 1 & 1
        for lr in range(2):
            curves[n, lr, :, 0, 0] = 0.5 + 0.1 * a - 0.05 * b + 0.04 * a * b - 0.2 * (lr != a)
    shared = rng.normal(size=seeds)[None, None, :, None, None]
    noisy = curves + noise * (shared + rng.normal(size=curves.shape))
    return Table("t", NAMES[:3], (1e-2, 1e-1), tuple(range(seeds)), (8,), noisy.astype(np.float32))


def test_shapley_values_are_the_mean_over_all_orders():
    worth = game()
    totals = np.zeros(4)
    orders = list(permutations(range(4)))
    for order in orders:
        for place, player in enumerate(order):
            before = number(order[:place])
            totals[player] += worth[before | 1 << player] - worth[before]
    got = made(worth)
    np.testing.assert_allclose([e.effect for e in got.shapley], totals / len(orders), atol=1e-12)
    assert [e.components for e in got.shapley] == [(name,) for name in NAMES]


def test_shapley_values_add_up_to_what_the_whole_has_gained():
    got = made(np.random.default_rng(1).normal(size=256), tuple("abcdefgh"))
    assert sum(e.effect for e in got.shapley) == pytest.approx(got.all - got.none)


def test_main_effects_and_interactions_are_means_over_all_other_subsets():
    worth, got = game(2), made(game(2))
    for i, effect in enumerate(got.main):
        others = [s for s in range(16) if not s >> i & 1]
        assert effect.effect == pytest.approx(np.mean([worth[s | 1 << i] - worth[s] for s in others]))
    for (i, j), effect in zip(combinations(range(4), 2), got.pairs, strict=True):
        others = [s for s in range(16) if not s >> i & 1 and not s >> j & 1]
        x, y = 1 << i, 1 << j
        expected = np.mean([worth[s | x | y] - worth[s | x] - worth[s | y] + worth[s] for s in others])
        assert effect.effect == pytest.approx(expected)
        assert effect.components == (NAMES[i], NAMES[j])


def test_where_effects_add_up_all_agree():
    gains = np.array([0.3, -0.2, 0.0, 0.1])
    got = made(np.array([sum(gains[i] for i in range(4) if s >> i & 1) for s in range(16)]))
    np.testing.assert_allclose([e.effect for e in got.main], gains, atol=1e-12)
    np.testing.assert_allclose([e.effect for e in got.shapley], gains, atol=1e-12)
    np.testing.assert_allclose([e.effect for e in got.pairs], 0, atol=1e-12)


def test_a_table_is_judged_at_each_subsets_best_rate():
    got = from_table(table(0.0, 0))
    assert [e.effect for e in got.main] == pytest.approx([0.12, -0.03, 0], abs=1e-6)
    assert [e.effect for e in got.shapley] == pytest.approx([0.12, -0.03, 0], abs=1e-6)
    assert [e.effect for e in got.pairs] == pytest.approx([0.04, 0, 0], abs=1e-6)
    assert (got.none, got.all) == pytest.approx((0.5, 0.59))
    assert json.loads(json.dumps(got.to_dict()))["shapley"][0]["components"] == ["a"]


def test_intervals_of_a_table_hold_the_truth_as_often_as_they_say():
    truth = {"a": 0.12, "b": -0.03, "c": 0.0}
    hits, widths = [], []
    for seed in range(150):
        for effect in from_table(table(0.02, seed), seed=seed).shapley:
            hits.append(effect.low <= truth[effect.components[0]] <= effect.high)
            widths.append(effect.high - effect.low)
    assert 0.92 <= np.mean(hits) <= 0.99
    assert np.mean(widths) < 0.05


def test_a_table_with_one_seed_has_no_intervals():
    with pytest.raises(ConfigError, match="two seeds"):
        from_table(table(0.0, 0, seeds=1))


@pytest.mark.parametrize("lr", [CategoricalDistribution((1e-3, 1e-2, 1e-1)), FloatDistribution(1e-3, 1e-1, log=True)])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_studys_model_knows_the_effects(lr, direction):
    sampler, rng = named("bayes", seed=0), np.random.default_rng(0)
    study = optuna.create_study(direction=direction, sampler=named("random", seed=0))
    space = {name: CategoricalDistribution((False, True)) for name in "abc"} | {"lr": lr}
    for _ in range(80):
        trial = study.ask(space)
        a, b = trial.params["a"], trial.params["b"]
        value = 5 + 1.0 * a - 0.5 * b + 0.4 * a * b - (np.log10(trial.params["lr"]) + (2 if a else 1)) ** 2
        value += 0.1 * rng.standard_normal()
        study.tell(trial, value if direction == "maximize" else -value)
    got = from_study(study, sampler, count=200)  # type: ignore[arg-type]
    for effect, truth in zip(got.shapley, (1.2, -0.3, 0.0), strict=True):
        assert effect.effect == pytest.approx(truth, abs=0.25)
        assert effect.low - 0.1 < truth < effect.high + 0.1
    assert got.pairs[0].effect == pytest.approx(0.4, abs=0.3)
    assert sum(e.effect for e in got.shapley) == pytest.approx(got.all - got.none)


def test_a_study_without_switches_or_results_has_no_attribution():
    sampler = named("bayes", seed=0)
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(ConfigError, match="switches"):
        from_study(study, sampler)  # type: ignore[arg-type]
    study.ask({"a": CategoricalDistribution((False, True)), "x": FloatDistribution(0, 1)})
    with pytest.raises(ConfigError, match="completed trial"):
        from_study(study, sampler)  # type: ignore[arg-type]


def sample_of(table: Table, seed: int, between: float | None = None, cells: Sequence[int] | None = None) -> Sample:
    """The cells of a table for one seed, or some of them, as the first round of a search."""
    subsets = [frozenset(table.subset(n)) for n in range(2 ** len(table.components)) for _ in table.lrs]
    lrs = np.array(list(table.lrs) * 2 ** len(table.components))
    chosen = np.arange(len(lrs)) if cells is None else np.asarray(cells)
    values = table.final[:, :, seed].reshape(-1)[chosen]
    round_ = Round(table.lengths[-1], seed, 1)
    return Sample(round_, table.components, [subsets[i] for i in chosen], lrs[chosen], values, between)


def test_a_round_knows_the_effects():
    got = from_sample(sample_of(table(0.001, 0), 0))
    for kind, truths in {"main": (0.12, -0.03, 0), "shapley": (0.12, -0.03, 0), "pairs": (0.04, 0, 0)}.items():
        for effect, truth in zip(getattr(got, kind), truths, strict=True):
            assert effect.effect == pytest.approx(truth, abs=0.01)
            assert effect.low <= truth <= effect.high


def test_a_game_of_some_components_has_the_others_off():
    made = table(0.0, 0)
    got = from_sample(sample_of(made, 0), ["b"])
    assert [e.components for e in got.main] == [("b",)]
    assert got.pairs == []
    assert got.main[0].effect == pytest.approx(-0.05, abs=0.02), "without the interaction with a"
    with pytest.raises(ConfigError, match="unknown component 'd'"):
        from_study(study_of_switches(4), named("bayes", seed=0), components=["d"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="1 to 12 switches, not 13"):
        from_study(study_of_switches(13), named("bayes", seed=0))  # type: ignore[arg-type]


def study_of_switches(count: int) -> optuna.Study:
    study = optuna.create_study()
    study.ask({f"x{i}": CategoricalDistribution((False, True)) for i in range(count)})
    return study


def test_a_round_that_has_hardly_begun_has_no_attribution():
    with pytest.raises(ConfigError, match="3 candidates that did not diverge are too few"):
        from_sample(sample_of(table(0.0, 0), 0, cells=[0, 1, 2]))
    made = sample_of(table(0.001, 0), 0)
    with pytest.raises(ConfigError, match="one subset at several rates"):
        from_sample(replace(made, subsets=[made.subsets[0]] * len(made.subsets)))


def test_many_components_are_looked_at_where_they_are_best(monkeypatch):
    """With more points than there is room for, each subset keeps its best learning rates."""
    made = sample_of(table(0.001, 0), 0)
    whole = from_sample(made)
    monkeypatch.setattr("autoranger.search.attribution.worth.MOST_POINTS", 8)
    part = from_sample(made)
    for one, other in zip(whole.shapley, part.shapley, strict=True):
        assert one.effect == pytest.approx(other.effect, abs=0.003)


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_how_much_effects_differ_between_seeds_is_seen(spread):
    rng, found = np.random.default_rng(0), []
    subsets = [frozenset(name for i, name in enumerate("abcd") if n >> i & 1) for n in range(16)] * 4
    on = np.array([[name in subset for name in "abcd"] for subset in subsets], dtype=float)
    for _ in range(40):
        effects = np.array([[0.1], [0], [0], [-0.05]]) + spread * rng.standard_normal((4, 6))
        values = on @ effects + 0.005 * rng.standard_normal((64, 6)) + rng.standard_normal(6)
        values[3] = np.nan
        got = between_seeds("abcd", [(subsets, values), (subsets[:5], values[:5])])
        assert got is not None
        found.append(got)
    assert np.mean(found) == pytest.approx(spread**2, rel=0.2, abs=1e-6)
    assert between_seeds("abcd", [(subsets[:5], values[:5])]) is None


def test_intervals_allow_for_other_seeds():
    made = table(0.001, 0)
    alone, others = (from_sample(sample_of(made, 0, between)) for between in (None, 0.01**2))
    for one, other in zip(alone.shapley, others.shapley, strict=True):
        assert other.effect == one.effect
        assert (other.high - other.effect) ** 2 == pytest.approx(
            (one.high - one.effect) ** 2 + (1.96 * 0.01) ** 2, rel=1e-3
        )


@pytest.mark.slow
@pytest.mark.parametrize(("task", "seed", "agreement"), [("digits", 1, 0.85), ("fashion", 0, 0.95)])
def test_a_race_on_a_real_table_agrees_with_the_whole_table(task, seed, agreement):
    """Round one sees every cell on one seed; two more see the best subsets on the other seeds."""
    whole = Table.load(Path(__file__).parents[1] / "studies" / "07_tables" / f"{task}.npz")
    whole = whole.at(length=whole.lengths[-1])
    first = np.nan_to_num(whole.final[:, :, seed], nan=-1)
    leaders, others = np.argsort(-first.max(axis=1))[:86], [s for s in range(len(whole.seeds)) if s != seed]
    subsets = [frozenset(whole.subset(int(n))) for n in leaders for _ in range(2)]
    values = np.concatenate([whole.final[n, np.argsort(-first[n])[:2]][:, others] for n in leaders])
    got = from_sample(sample_of(whole, seed, between_seeds(whole.components, [(subsets, values)])))
    truth = from_table(whole)
    hits = []
    for kind in ("main", "shapley"):
        estimates, truths = ([e.effect for e in getattr(a, kind)] for a in (got, truth))
        assert np.corrcoef(estimates, truths)[0, 1] > agreement
        hits += [e.low <= t <= e.high for e, t in zip(getattr(got, kind), truths, strict=True)]
    assert np.mean(hits) >= 0.75

"""The forecast for longer trainings: its trend, its chances and intervals, and what a search says of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from autoranger import Config
from autoranger.report.sentences import outlook
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from autoranger.search.verdict.forecast import MODEL, Model, Trend, forecast, trend
from autoranger.search.verdict.outcome import Evidence
from tests import toy
from tests.test_search import PLAN, SMALL

TEN = math.log2(10)


def test_the_trend_is_a_line_through_logarithms() -> None:
    """Against polyfit, and errors against what they are over many repetitions."""
    rng, lengths, count = np.random.default_rng(0), [75, 150, 300], 16
    x = np.log2(lengths)

    def draw() -> list[np.ndarray]:
        common = rng.standard_normal(count)  # seeds that suit one candidate do so at every length
        return [0.5 + 0.1 * (x[i] - x[-1]) + 0.2 * common + 0.1 * rng.standard_normal(count) for i in range(3)]

    one = draw()
    found = trend(lengths, one)
    assert found.effect == pytest.approx(one[-1].mean())
    assert found.growth == pytest.approx(np.polyfit(x, [d.mean() for d in one], 1)[0])
    repeated = [trend(lengths, draw()) for _ in range(2000)]
    errors = np.cov([t.effect for t in repeated], [t.growth for t in repeated])
    means = [np.mean([getattr(t, name) ** power for t in repeated]) for name, power in (("error", 2), ("uncertain", 2))]
    assert means == pytest.approx([errors[0, 0], errors[1, 1]], rel=0.1)
    assert np.mean([t.related for t in repeated]) == pytest.approx(errors[0, 1], rel=0.3)


@pytest.mark.parametrize("model", [MODEL, Model(share=0.6, spread=0.1, freedom=8.0)])
def test_chances_and_intervals_are_right_where_the_model_is(model: Model) -> None:
    rng = np.random.default_rng(1)
    chances, ahead, covered = [], [], []
    for _ in range(4000):
        found = Trend(float(rng.normal(0.5, 1)), 0.2, float(rng.normal(0, 0.3)), 0.1, 0.01)
        mean, scale = model.at(found, TEN)
        truth = mean + scale * rng.standard_t(model.freedom)
        low, high = model.interval(found, TEN, 0.9)
        chances.append(model.chance(found, TEN))
        ahead.append(truth > 0)
        covered.append(low <= truth <= high)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.015)
    for low in np.arange(0, 1, 0.2):
        some = [k for k, chance in enumerate(chances) if low <= chance < low + 0.2]
        assert np.mean([ahead[k] for k in some]) == pytest.approx(np.mean([chances[k] for k in some]), abs=0.07)


def test_a_lead_that_shrinks_is_trusted_less() -> None:
    def chance(growth: float, error: float = 0.01, doublings: float = TEN) -> float:
        return MODEL.chance(Trend(0.1, error, growth, 0.01, 0.0), doublings)

    assert chance(-0.1) < chance(-0.02) < chance(0.0) < chance(0.05)
    assert chance(0.0, 0.1) < chance(0.0, 0.01)
    assert chance(0.0) < chance(0.0, doublings=1) < chance(0.0, doublings=0)
    sure, lost = Trend(0.1, 0.001, 0.2, 0.001, 0.0), Trend(0.1, 0.1, -0.1, 0.01, 0.0)
    assert Model(1.0, 0.01, 9.0).trusted(sure, TEN) == TEN
    assert MODEL.trusted(lost, TEN) == -1.0
    between = MODEL.trusted(Trend(0.1, 0.02, -0.03, 0.001, 0.0), TEN)
    assert 0 <= between < TEN
    assert MODEL.chance(Trend(0.1, 0.02, -0.03, 0.001, 0.0), between) >= 0.9


def test_the_baseline_with_the_least_chance_is_named() -> None:
    rng = np.random.default_rng(2)
    noise = 0.01 * rng.standard_normal((3, 3, 16))
    base = np.array([[1.0, 0.9, 0.5], [1.0, 0.95, 0.5], [1.0, 0.99, 0.5]])  # the second catches up
    values = {length: base[i][:, None] + noise[i] for i, length in enumerate((75, 150, 300))}
    values[75][2, 0] = np.nan  # one has diverged
    found = forecast(300, values, {"adamw_cosine": 1, "adamw": 2})
    assert (found.steps, found.rival, found.seeds) == (3000, "adamw_cosine", 16)
    assert found.chance < 0.9
    assert found.low < found.high
    assert 0 <= found.trusted < 3000
    assert found.chance == round(MODEL.chance(trend([75, 150, 300], [v[0] - v[1] for v in values.values()]), TEN), 3)


def test_a_search_says_how_it_would_be_in_longer_trainings(tmp_path) -> None:  # type: ignore[no-untyped-def]
    def run(name: str) -> Evidence:
        return search(toy.Toy(), open_storage(str(tmp_path / name)), name, space=SMALL, plan=PLAN).evidence

    evidence = run("a")
    assert evidence.comparison is not None
    found = evidence.comparison.forecast
    assert found is not None
    assert found.steps == 10 * evidence.plan.steps
    assert found.rival in evidence.comparison.baselines
    assert 0 < found.chance < 1
    assert run("b") == evidence, "a repetition says the same"
    Config().save(tmp_path / "c.toml", evidence.to_dict())
    assert f"In trainings of {found.steps} steps it is better than" in outlook(evidence)


@pytest.mark.parametrize(
    ("trusted", "words"),
    [
        (200, "and than every other baseline with at least that."),
        (0, "with a chance of 75%, the least of all baselines."),
        (57, "Up to about 57 steps it is 90% or more, so for 200 steps search with a proxy of 70."),
    ],
)
def test_what_is_said(tmp_path, trusted: int, words: str) -> None:  # type: ignore[no-untyped-def]
    evidence = search(toy.Toy(), open_storage(str(tmp_path / "j")), "s", space=SMALL, plan=PLAN).evidence
    assert evidence.comparison is not None
    assert evidence.comparison.forecast is not None
    found = replace(evidence.comparison.forecast, chance=0.75, trusted=trusted, steps=200)
    told = outlook(replace(evidence, comparison=replace(evidence.comparison, forecast=found)))
    assert told.endswith(words), told
    assert outlook(replace(evidence, comparison=replace(evidence.comparison, forecast=None))) == ""
    assert outlook(None) == ""

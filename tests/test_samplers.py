"""The samplers: Optuna's contract, the models against independent formulas, and what they find where it is known."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState
from scipy import stats
from scipy.optimize import approx_fprime

from autoranger.components.core.errors import ConfigError
from autoranger.components.presets import RANGER21
from autoranger.search.samplers import DEFAULT, SAMPLERS, named
from autoranger.search.samplers.base import STARTUP, History, ModelSampler, scalarized, standardized
from autoranger.search.samplers.bayes import improvement
from autoranger.search.samplers.comband import ComBandSampler
from autoranger.search.samplers.encoding import Axis, Encoding
from autoranger.search.samplers.process import Data, Process, matern
from autoranger.search.samplers.thompson import Features, Linear

optuna.logging.set_verbosity(optuna.logging.WARNING)

OURS = ["bayes", "thompson", "comband", "combucb"]
OPTUNAS = sorted(SAMPLERS.keys() - OURS)

SWITCHES = {name: CategoricalDistribution((False, True)) for name in "abcde"}
RATE = {"lr": FloatDistribution(1e-4, 1e0, log=True)}
SPACE = SWITCHES | RATE

each_of_ours = pytest.mark.parametrize("name", OURS)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
class TestContract(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """What Optuna asks of every sampler."""

    @pytest.fixture(params=OURS)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        def make() -> BaseSampler:
            sampler = named(request.param, seed=0)
            assert isinstance(sampler, ModelSampler)
            sampler.startup = 4  # so that the model is used in short studies as well
            return sampler

        return make


def value(params: dict[str, object]) -> float:
    """Best with a and b on, c off, at a rate that depends on a; every other switch does nothing."""
    rate = 1e-1 if params["a"] else 1e-3
    switches = 2.0 * bool(params["a"]) + 1.0 * bool(params["b"]) - 1.0 * bool(params["c"])
    return switches - (math.log10(params["lr"]) - math.log10(rate)) ** 2  # type: ignore[arg-type]


def play(sampler: BaseSampler, trials: int, direction: str = "maximize", space=SPACE, noise: float = 0.3):
    """A study of `value` with noise."""
    study, rng = optuna.create_study(direction=direction, sampler=sampler), np.random.default_rng(0)
    for _ in range(trials):
        trial = study.ask(space)
        noisy = value(trial.params) + noise * rng.standard_normal()
        study.tell(trial, noisy if direction == "maximize" else -noisy)
    return study


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_has_a_name(name):
    if name == "cmaes":
        pytest.importorskip("cmaes")
    study = optuna.create_study(direction="maximize", sampler=named(name, seed=1))
    study.optimize(lambda trial: -((trial.suggest_float("x", -1, 1) - trial.suggest_float("y", 0, 2)) ** 2), n_trials=4)
    assert len(study.trials) == 4


def test_a_missing_package_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "cmaes", lambda seed: importlib.import_module("no_such_package"))
    with pytest.raises(ConfigError, match=r"pip install .*no_such_package"):
        named("cmaes")


def test_an_unknown_name_is_an_error_that_names_the_nearest():
    assert DEFAULT in SAMPLERS
    with pytest.raises(ConfigError, match="unknown sampler 'thomson'; did you mean 'thompson'"):
        named("thomson")


@each_of_ours
def test_the_same_seed_gives_the_same_trials(name):
    one, same, other = (play(named(name, seed=s), 20) for s in (3, 3, 4))
    assert [t.params for t in one.trials] == [t.params for t in same.trials]
    assert [t.params for t in one.trials] != [t.params for t in other.trials]


@each_of_ours
def test_a_batch_has_no_duplicates(name):
    study = optuna.create_study(direction="maximize", sampler=named(name, seed=0))
    grid = SWITCHES | {"lr": CategoricalDistribution((1e-3, 1e-2, 1e-1))}
    seen = [study.ask(grid).params for _ in range(24)]
    assert len({tuple(sorted(p.items())) for p in seen}) == 24, "before any result"
    for number, params in enumerate(seen):
        study.tell(number, value(params))
    batch = [study.ask(grid).params for _ in range(24)]
    assert len({tuple(sorted(p.items())) for p in batch}) == 24, "with a model"


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(
    "lr", [RATE["lr"], CategoricalDistribution((1e-4, 1e-3, 1e-2, 1e-1, 1e0))], ids=["log", "grid"]
)
@pytest.mark.parametrize("name", ["bayes", "thompson"])
def test_the_models_find_the_best_point(name, lr, direction):
    space = SWITCHES | {"lr": lr}
    sampler = named(name, seed=0)
    assert isinstance(sampler, ModelSampler)
    study = play(sampler, 60, direction, space)
    assert 3.0 - value(sampler.recommend(study)) < 0.3
    late = [value(trial.params) for trial in study.trials[40:]]
    assert np.median(late) > 3.0 - 0.5


@pytest.mark.parametrize("name", ["comband", "combucb"])
def test_the_bandits_learn_from_random_trials(name):
    grid = SWITCHES | {"lr": CategoricalDistribution((1e-3, 1e-2, 1e-1))}
    study = play(named("random", seed=0), 400, space=grid)
    random = [value(t.params) for t in study.trials]
    study.sampler, learnt = named(name, seed=0), []
    for _ in range(40):
        trial = study.ask(grid)
        learnt.append(value(trial.params))
        study.tell(trial, learnt[-1])
    assert np.mean(learnt) > np.mean(random) + 0.3


def test_full_ranger21_and_adamw_come_first():
    study = optuna.create_study(direction="maximize", sampler=named(seed=5))
    space = {name: CategoricalDistribution((False, True)) for name in (*RANGER21, "amsgrad")} | RATE
    first, second = study.ask(space).params, study.ask(space).params
    assert all(first[name] for name in RANGER21)
    assert not first["amsgrad"]
    assert not any(second[name] for name in RANGER21)


def test_the_first_trials_spread_every_scale_evenly():
    study = optuna.create_study(sampler=named(seed=5))
    rates = sorted(math.log10(study.ask(RATE).params["lr"]) for _ in range(STARTUP))
    assert [math.floor((rate + 4) / 4 * STARTUP) for rate in rates] == list(range(STARTUP))


@pytest.mark.parametrize("name", [name for name in OURS if name != "comband"])  # that explores every other time
def test_failed_trials_are_avoided(name):
    study = optuna.create_study(direction="maximize", sampler=named(name, seed=0))
    failed = 0
    for number in range(80):
        trial = study.ask(SPACE)
        if trial.params["d"]:
            failed += number >= 50
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value(trial.params))
    assert failed < 12, "of 30; by chance half of them"


def test_a_study_in_which_everything_fails_goes_on():
    study = optuna.create_study(sampler=named(seed=0))
    for _ in range(15):
        study.tell(study.ask(SPACE), float("nan"))
    assert study.ask(SPACE).params.keys() == SPACE.keys()


def test_several_objectives_spread_over_the_front():
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=named(seed=0))
    for _ in range(40):
        trial = study.ask({"x": FloatDistribution(-3, 5), "on": CategoricalDistribution((False, True))})
        penalty = 0.5 * trial.params["on"]
        study.tell(trial, [trial.params["x"] ** 2 + penalty, (trial.params["x"] - 2) ** 2 + penalty])
    late = [t.params["x"] for t in study.trials[20:]]
    assert np.mean([-0.5 < x < 2.5 for x in late]) > 0.7
    assert np.std(late) > 0.3
    with pytest.raises(ConfigError, match="one objective"):
        study.sampler.recommend(study)  # type: ignore[attr-defined]


def test_the_recommendation_is_not_the_luckiest_trial():
    sampler, rng = named(seed=0), np.random.default_rng(0)
    assert isinstance(sampler, ModelSampler)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space = {name: CategoricalDistribution((False, True)) for name in "ab"}
    for number in range(24):
        params = {"a": bool(number & 1), "b": bool(number & 2)}
        noisy = 2 * params["a"] + params["b"] + 0.2 * rng.standard_normal()
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=noisy))
    lucky = {"a": False, "b": False}
    study.add_trial(optuna.create_trial(params=lucky, distributions=space, value=5.0))
    assert study.best_params == lucky
    assert sampler.recommend(study) == {"a": True, "b": True}


# the models


def test_the_gradient_of_the_process_is_right():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 2, 40), rng.integers(0, 3, 40), rng.random(40), rng.random(40)], axis=1)
    data = Data.of(np.concatenate([rows, rows[:10]]), rng.standard_normal(50))
    process = Process(np.array([2, 3, 0, 0]))
    objective = process._objective(data)
    theta = process.center + 0.3 * rng.standard_normal(len(process.center))
    numeric = approx_fprime(theta, lambda t: objective(t)[0], 1e-6)
    np.testing.assert_allclose(objective(theta)[1], numeric, rtol=1e-4, atol=1e-4)
    before = objective(process.theta)[0]
    process.fit(data)
    assert objective(process.theta)[0] < before


def test_repeated_observations_count_as_what_they_are():
    """The posterior and the likelihood with means and counts are those of every observation by itself."""
    rng = np.random.default_rng(1)
    rows = np.stack([rng.integers(0, 2, 12), rng.random(12)], axis=1)
    rows, values = np.concatenate([rows, rows[:6], rows[:3]]), rng.standard_normal(21)
    process = Process(np.array([2, 0]))
    query = np.array([[0.0, 0.2], [1.0, 0.7]])
    full = process.covariance(rows, rows) + process.noise * np.eye(21)
    cross = process.covariance(query, rows)
    mean, deviation = process.posterior(Data.of(rows, values), query)
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(full, values), rtol=1e-5)
    expected = np.diag(process.covariance(query, query) - cross @ np.linalg.solve(full, cross.T))
    np.testing.assert_allclose(deviation**2, expected, rtol=1e-5)
    objective = process._objective(Data.of(rows, values))
    other = process.theta + 0.2
    ours = objective(other)[0] - objective(process.theta)[0]

    def density(theta: np.ndarray) -> float:
        process.theta = theta
        full = process.covariance(rows, rows) + process.noise * np.eye(21)
        priors = stats.norm.logpdf(theta, process.center, process.spread).sum()
        return float(stats.multivariate_normal.logpdf(values, cov=full) + priors)

    start = process.theta
    assert ours == pytest.approx(density(start) - density(other), rel=1e-5)


def test_draws_of_the_process_have_its_mean_and_deviation():
    rng = np.random.default_rng(2)
    rows = np.stack([rng.integers(0, 2, 8), rng.random(8)], axis=1)
    data, process = Data.of(rows, rng.standard_normal(8)), Process(np.array([2, 0]))
    query = np.array([[0.0, 0.2], [1.0, 0.7], [1.0, 0.9]])
    drawn = process.sample(data, query, 20_000, rng)
    mean, deviation = process.posterior(data, query)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.03)


def test_the_matern_function_is_scikit_learns():
    from sklearn.gaussian_process.kernels import Matern

    x = np.linspace(0, 3, 7)[:, None]
    ours = matern((x - x.T) ** 2 / 0.7**2)
    np.testing.assert_allclose(ours, Matern(length_scale=0.7, nu=2.5)(x), rtol=1e-12)


def test_the_improvement_is_its_integral():
    means, deviations, best, noise = np.array([0.1, -0.4]), np.array([0.5, 1.2]), 0.3, 0.2
    grid = np.linspace(-12, 12, 200_001)
    for mean, deviation, got in zip(means, deviations, improvement(means, deviations, best, noise), strict=True):
        integrand = np.maximum(grid - best, 0) * stats.norm.pdf(grid, mean, deviation)
        factor = 1 - math.sqrt(noise / (noise + deviation**2))
        assert got == pytest.approx(np.trapezoid(integrand, grid) * factor, rel=1e-5)


def test_the_linear_model_has_the_posterior_and_the_evidence_of_its_normal_distribution():
    rng = np.random.default_rng(3)
    encoding = Encoding(SPACE)
    features = Features(encoding, [True, None, None, False, None, None])
    rows, values = encoding.random(15, rng), rng.standard_normal(15)
    x = features(rows)
    models = {(s, n): Linear(x, values, features, s, n) for s in (0.1, 1.0) for n in (0.1, 0.5)}
    for (scale, noise), model in models.items():
        prior = np.diag(features.variance * np.where(np.arange(x.shape[1]) == 0, 1.0, scale))
        marginal = x @ prior @ x.T + noise * np.eye(15)
        gain = prior @ x.T @ np.linalg.inv(marginal)
        np.testing.assert_allclose(model.mean, features.mean + gain @ (values - x @ features.mean), atol=1e-8)
        np.testing.assert_allclose(model.draw(40_000, rng).mean(axis=0), model.mean, atol=0.05)
        exact = stats.multivariate_normal.logpdf(values, x @ features.mean, marginal)
        base = models[0.1, 0.1]
        base_marginal = x @ np.diag(np.where(np.arange(x.shape[1]) == 0, 1, 0.1) * features.variance) @ x.T
        base_exact = stats.multivariate_normal.logpdf(values, x @ features.mean, base_marginal + 0.1 * np.eye(15))
        assert model.evidence - base.evidence == pytest.approx(exact - base_exact, abs=1e-6)


def test_the_probabilities_of_comband_fall_with_cost_and_never_vanish():
    sampler = ComBandSampler(seed=0)
    space = {name: CategoricalDistribution((False, True)) for name in "abc"}
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rng = np.random.default_rng(0)
    for _ in range(60):
        trial = study.ask(space)
        study.tell(trial, bool(trial.params["a"]) - bool(trial.params["b"]) + 0.1 * rng.standard_normal())
    encoding = Encoding(space)
    points = encoding.grid()
    chances = sampler.probabilities(encoding, sampler.history(study, None, space), points)
    assert chances.sum() == pytest.approx(1)
    assert chances.min() > 0
    assert {True} == {encoding.decode(points[i])["a"] for i in np.argsort(-chances)[:2]}
    assert {False} == {encoding.decode(points[i])["b"] for i in np.argsort(-chances)[:2]}


def comband_by_the_paper(actions, played, costs, horizon):
    """The distribution after some plays, written from the paper's Figure 1 with the rates of the class's docstring."""
    count, length = actions.shape
    parameters = played[0].sum()
    smallest = min(value for value in np.linalg.eigvalsh(sum(np.outer(v, v) for v in actions) / count) if value > 1e-9)
    gamma = math.sqrt(parameters * math.log(count) / (smallest * horizon * (1 + smallest * length / parameters)))
    gamma = min(gamma, 0.5)
    eta = gamma * smallest / parameters
    weights = np.ones(count)
    for v, cost in zip(played, costs, strict=True):
        chances = (1 - gamma) * weights / weights.sum() + gamma / count
        correlation = sum(chance * np.outer(w, w) for chance, w in zip(chances, actions, strict=True))
        estimate = cost * np.linalg.pinv(correlation) @ v
        weights = weights * np.exp(-eta * actions @ estimate)
    return (1 - gamma) * weights / weights.sum() + gamma / count, gamma


@pytest.mark.parametrize(("trials", "horizon"), [(12, 256), (300, 20_000)])
def test_comband_explores_as_the_paper_says(trials, horizon):
    sampler = ComBandSampler(seed=0, horizon=horizon)
    space = {name: CategoricalDistribution((False, True)) for name in "abc"}
    study, rng = optuna.create_study(direction="maximize", sampler=sampler), np.random.default_rng(1)
    for _ in range(trials):
        params = {name: bool(rng.integers(2)) for name in space}
        value = 3.0 * params["a"] - params["b"] + 0.1 * rng.standard_normal()
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=value))
    encoding = Encoding(space)
    history, points = sampler.history(study, None, space), encoding.grid()
    values = standardized(history.values)
    actions, played = (np.concatenate([r == 0, r == 1], axis=1).astype(float) for r in (points, history.rows))
    expected, gamma = comband_by_the_paper(actions, played, (values.max() - values) / np.ptp(values), horizon)
    chances = sampler.probabilities(encoding, history, points)
    np.testing.assert_allclose(chances, expected, rtol=1e-6)
    assert chances.min() >= gamma / len(points) * (1 - 1e-9), "nothing is ever given up"


def test_thompson_expects_a_switch_to_cost_a_little_until_it_is_tried():
    """What nobody has turned costs a tenth of a deviation; what has no reference costs nothing."""
    sampler = named("thompson", seed=0)
    space = {name: CategoricalDistribution((False, True)) for name in (*RANGER21[:3], "amsgrad", "mine")}
    encoding, reference = Encoding(space), {name: name in RANGER21 for name in space} | {"mine": False}
    start = np.array([[axis.encode(reference[name]) for name, axis in encoding.axes.items()]])
    history = History(np.repeat(start, 2, axis=0), np.array([1.0, 1.0]), start[:0])
    flipped = np.repeat(start, len(space), axis=0)
    np.fill_diagonal(flipped, 1 - flipped.diagonal())
    both = start.copy()
    both[0, :2] = 1 - both[0, :2]
    at, *turned, twice = sampler.estimate(encoding, history, np.concatenate([start, flipped, both]))
    loss = dict(zip(encoding.axes, at - np.array(turned), strict=True))
    for name in (*RANGER21[:3], "amsgrad"):
        assert loss[name] == pytest.approx(0.1), name
    assert at - twice == pytest.approx(0.2)
    assert loss["mine"] == pytest.approx(0.0)


# the encoding

DISTRIBUTIONS = [
    CategoricalDistribution((False, True)),
    CategoricalDistribution((None, "x", 3)),
    CategoricalDistribution((1e-3, 3e-3, 1e-2, 3e-2)),
    CategoricalDistribution((4, 2, 1)),
    CategoricalDistribution((2, 1, 4)),
    FloatDistribution(-1.0, 2.0),
    FloatDistribution(1e-6, 1e2, log=True),
    FloatDistribution(0.0, 1.0, step=0.25),
    IntDistribution(-3, 9, step=3),
    IntDistribution(1, 1000, log=True),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_values_survive_the_encoding(distribution):
    axis, rng = Axis(distribution), np.random.default_rng(0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        drawn = study.ask({"x": distribution}).params["x"]
        decoded = axis.decode(axis.encode(drawn))
        assert decoded == pytest.approx(drawn) if isinstance(drawn, float) else decoded == drawn
        assert type(decoded) is type(drawn)
        anything = axis.decode(float(rng.uniform(-0.2, 1.2)))
        assert distribution._contains(distribution.to_internal_repr(anything))


def test_numbers_in_order_are_a_scale_and_other_choices_are_not():
    assert [Axis(d).choices for d in DISTRIBUTIONS] == [2, 3, 0, 0, 3, 0, 0, 0, 0, 0]
    grid = Axis(CategoricalDistribution((1e-3, 1e-2, 1e-1)))
    np.testing.assert_allclose([grid.encode(x) for x in (1e-3, 1e-2, 1e-1)], [0, 0.5, 1])


def test_a_pool_is_the_whole_space_where_it_is_small():
    rng = np.random.default_rng(0)
    small = Encoding({"a": DISTRIBUTIONS[0], "b": DISTRIBUTIONS[1], "lr": DISTRIBUTIONS[2]})
    pool = small.pool(100, rng, small.random(2, rng))
    assert len(pool) == len({tuple(row) for row in pool}) == small.size == 24
    large = Encoding({str(i): CategoricalDistribution((False, True)) for i in range(30)} | RATE)
    around = large.random(1, rng)
    pool = large.pool(100, rng, around)
    assert large.size == math.inf
    flips = {tuple(row[:-1]) for row in pool if (row[:-1] != around[0, :-1]).sum() == 1}
    assert len(flips) == 30


def test_values_are_standardized_with_a_floor():
    values = np.array([0.0, 0.1, 0.2, 0.3, -1e9, -np.inf])
    moved = standardized(values)
    assert moved.mean() == pytest.approx(0)
    assert moved.std() == pytest.approx(1)
    assert moved[4] == moved[5] == moved.min()
    assert list(np.argsort(-moved)[:4]) == [3, 2, 1, 0]
    np.testing.assert_array_equal(standardized(np.array([2.0, 2.0])), [0, 0])


def test_scalarization_never_prefers_what_is_worse_in_everything():
    values = np.array([[1.0, 1.0], [0.5, 0.9], [0.2, 3.0], [-np.inf, -np.inf]])
    for seed in range(20):
        merged = scalarized(values, np.random.default_rng(seed))
        assert merged[0] > merged[1]
        assert merged[3] == -np.inf

"""The contract of a component, for every registered one. A new component is tested without an edit here."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from autoranger import Component, Config, ConfigError, Hyper, Ranger21, Signals, Stage
from autoranger.components.core.component import registry
from autoranger.components.core.hyper import Setting
from autoranger.components.presets import RANGER21
from tests.conftest import (
    MEDIUM,
    PROBLEM,
    SMALL,
    TINY,
    Array,
    Problem,
    advance,
    arrays,
    assert_close,
    differ,
    follow,
    populate,
)
from tests.recorded import tolerance
from tests.references import reference

each_component = pytest.mark.parametrize("cls", [pytest.param(cls, id=name) for name, cls in registry.items()])
each_hyper = pytest.mark.parametrize(
    ("cls", "hyper"),
    [
        pytest.param(cls, hyper, id=f"{name}.{hyper.name}")
        for name, cls in registry.items()
        for hyper in cls.hypers.values()
    ],
)


def config(**components: object) -> Config:
    """Numbers that make every component matter within 30 steps."""
    return Config(lr=1e-2, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1, components=components)


def eight(cls: type[Component]) -> dict[str, object]:
    """Ranger21's components, without those that this component excludes."""
    return {name: {} for name in RANGER21 if not cls.excludes(registry[name])}


def scheduled(cls: type[Component]) -> dict[str, object]:
    """A schedule, where this component goes with one: some have no effect without."""
    warmup = registry["linear_warmup"]
    return {warmup.id: {}} if cls is not warmup and not cls.excludes(warmup) else {}


def alternatives(hyper: Hyper) -> Iterator[Setting]:
    """Valid values that are not the default, the moderate ones first."""
    if hyper.choices:
        yield from (choice for choice in hyper.choices if choice != hyper.default)
        return
    within = [] if hyper.low is None else [math.sqrt(hyper.low * hyper.high) if hyper.log else hyper.low, hyper.high]
    for value in (*within, hyper.default / 2, hyper.default * 2, hyper.default + 1, hyper.minimum, hyper.maximum, 1e6):
        with suppress(ConfigError, OverflowError):
            rounded = round(value) if hyper.integer else value
            if not math.isclose(hyper.check(rounded, hyper.name), hyper.default, rel_tol=0.1):
                yield rounded


def other(hyper: Hyper) -> Setting:
    """A valid value that is not the default."""
    found = next(alternatives(hyper), None)
    assert found is not None, f"{hyper.name} has a single valid value, so it is no hyperparameter"
    return found


def others(cls: type[Component]) -> dict[str, Setting]:
    return {name: other(hyper) for name, hyper in cls.hypers.items()}


# The mathematics


def expected(c: Config, problem: Problem) -> list[Array]:
    """What the reference says; skips where nobody has written one that follows this config."""
    try:
        return reference(c)(c, problem.params, problem.grads, problem.total_steps)
    except NotImplementedError as error:
        pytest.skip(str(error))


@each_component
@pytest.mark.parametrize("settings", ["default", "other"])
def test_it_follows_its_paper(cls: type[Component], settings: str) -> None:
    c = config(**{cls.id: others(cls) if settings == "other" else {}})
    problem = PROBLEM if settings == "default" else MEDIUM
    assert_close(follow(c, problem), expected(c, problem), tolerance(c))


@each_component
def test_it_follows_its_paper_with_all_eight(cls: type[Component]) -> None:
    c = config(**eight(cls) | {cls.id: others(cls)})
    assert_close(follow(c, MEDIUM), expected(c, MEDIUM), tolerance(c))


def test_all_eight_together_follow_their_papers() -> None:
    c = config(**dict.fromkeys(RANGER21, True))
    assert_close(follow(c, PROBLEM), expected(c, PROBLEM))


@each_component
def test_it_changes_the_result(cls: type[Component]) -> None:
    assert differ(follow(config(**scheduled(cls) | {cls.id: {}}), TINY), follow(config(**scheduled(cls)), TINY))


@each_hyper
def test_every_hyperparameter_changes_the_result(cls: type[Component], hyper: Hyper) -> None:
    usual = follow(config(**{cls.id: {}}), SMALL)
    assert any(differ(follow(config(**{cls.id: {hyper.name: v}}), SMALL), usual) for v in alternatives(hyper))


@each_component
def test_it_needs_total_steps_exactly_where_it_says_so(cls: type[Component]) -> None:
    c = config(**{cls.id: {}})
    results = []
    for total_steps in (TINY.total_steps, 2 * TINY.total_steps):
        params = TINY.leaves()
        advance(c.build(params, total_steps=total_steps), params, TINY.grads)
        results.append(arrays(params))
    assert differ(*results) == cls.needs_total_steps


# Switching


@each_component
def test_off_is_identity(cls: type[Component]) -> None:
    off = config(**scheduled(cls) | {cls.id: False})
    assert off == config(**scheduled(cls))
    with_it, without_it = populate([config(**scheduled(cls) | {cls.id: {}}), off], TINY)
    assert differ(with_it, without_it)
    assert_close(without_it, follow(off, TINY), 1e-12)


@each_component
def test_a_row_of_a_population_is_the_single_optimizer(cls: type[Component]) -> None:
    configs = [
        config(**{cls.id: {}}),
        config(**{cls.id: others(cls)}),
        config(**eight(cls) | {cls.id: {}}),
        config(**eight(cls) | {cls.id: False}),
    ]
    for c, row in zip(configs, populate(configs, TINY), strict=True):
        assert_close(row, follow(c, TINY), 1e-12)


# State


@each_component
def test_it_resumes_exactly(cls: type[Component]) -> None:
    c = config(**{cls.id: {}})
    half = len(SMALL.grads) // 2 + 1
    params = SMALL.leaves()
    optimizer = c.build(params, total_steps=SMALL.total_steps)
    advance(optimizer, params, SMALL.grads[:half])
    file = io.BytesIO()
    torch.save({"params": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    resumed = [torch.nn.Parameter(p) for p in saved["params"]]
    other_optimizer = c.build(resumed, total_steps=SMALL.total_steps)
    other_optimizer.load_state_dict(saved["optimizer"])
    advance(other_optimizer, resumed, SMALL.grads[half:])
    other_optimizer.eval()
    assert not differ(arrays(resumed), follow(c, SMALL))


@each_component
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_stays_finite_and_keeps_the_dtype(cls: type[Component], dtype: torch.dtype) -> None:
    params = TINY.leaves(dtype)
    optimizer = config(**eight(cls) | {cls.id: {}}).build(params, total_steps=TINY.total_steps)
    advance(optimizer, params, TINY.grads)
    for p in params:
        assert p.isfinite().all()
        state = [value for name, value in optimizer.state[p].items() if name != "step"]
        assert {value.dtype for value in state} <= {torch.float32}, "half precision is for parameters, not for state"


@each_component
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e10])
def test_it_stays_finite_for_vanishing_and_huge_gradients(cls: type[Component], scale: float) -> None:
    params = TINY.leaves(torch.float32)
    optimizer = config(**{cls.id: {}}).build(params, total_steps=TINY.total_steps)
    grads = [[g if g is None else g * scale for g in step] for step in TINY.grads]
    advance(optimizer, params, grads)
    assert all(p.isfinite().all() for p in params)


@each_component
def test_it_leaves_gradients_and_parameters_without_gradients_alone(cls: type[Component]) -> None:
    params = SMALL.leaves()
    optimizer = config(**{cls.id: {}}).build(params, total_steps=SMALL.total_steps)
    for grads in SMALL.grads:
        before = arrays(params)
        advance(optimizer, params, [grads])
        for p, old, grad in zip(params, before, grads, strict=True):
            if grad is None:
                np.testing.assert_array_equal(p.detach().numpy(), old)
            else:
                np.testing.assert_array_equal(p.grad.numpy(), grad)


# Declarations


@each_component
def test_it_survives_the_config_file(cls: type[Component], tmp_path: Path) -> None:
    for settings in ({}, others(cls)):
        c = config(**{cls.id: settings})
        c.save(tmp_path / "config.toml")
        assert Config.load(tmp_path / "config.toml") == c
        assert c.components[cls.id].keys() == cls.hypers.keys()


@each_component
def test_it_is_described_by_its_own_file(cls: type[Component]) -> None:
    if cls.__module__.startswith("autoranger."):
        assert cls.__module__ == f"autoranger.components.{cls.id}"
    assert isinstance(cls.stage, Stage)
    assert re.search(r"arXiv \d{4}\.\d{4,5}|http", cls.source), "name the paper it is from"
    assert re.fullmatch(r"[A-Z].+[.]", cls.summary()), "the docstring starts with one sentence that says what it does"


@each_hyper
def test_a_hyperparameter_has_a_valid_default_and_range(cls: type[Component], hyper: Hyper) -> None:
    assert hyper.check(hyper.default, hyper.name) == hyper.default
    assert (hyper.low is None) == (hyper.high is None)
    if hyper.low is not None:
        assert hyper.check(hyper.low, hyper.name) < hyper.check(hyper.high, hyper.name)
        assert hyper.low <= hyper.default <= hyper.high
        assert hyper.low > 0 or not hyper.log


@each_hyper
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), None, True, "nonsense", [1]], ids=str)
def test_a_hyperparameter_refuses_nonsense(cls: type[Component], hyper: Hyper, value: object) -> None:
    if isinstance(value, int | float) and value == -1 and hyper.minimum < 0:
        pytest.skip("negative values are valid here")
    with pytest.raises(ConfigError, match=rf"{cls.id}\.{hyper.name} is .*, but must be"):
        config(**{cls.id: {hyper.name: value}})


def test_components_act_in_the_order_of_their_stages() -> None:
    stages = [cls.stage for cls in registry.values()]
    assert stages == sorted(stages)
    assert list(Config.preset("ranger21").components) == [name for name in registry if name in RANGER21]


# A ninth component


class SignOfTheDirection(Component, register=False):
    """Take the sign of the direction, times a scale."""

    stage = Stage.DIRECTION
    source = "arXiv 1802.04434"
    scale = Hyper(1.0, low=0.5, high=2.0)

    def forward(self, x: Signals) -> Signals:
        return x._replace(direction=x.direction.sign() * self.scale)


@pytest.fixture
def ninth(monkeypatch: pytest.MonkeyPatch) -> type[Component]:
    monkeypatch.setitem(registry, SignOfTheDirection.id, SignOfTheDirection)
    return SignOfTheDirection


def test_a_ninth_component_joins_the_optimizer(ninth: type[Component]) -> None:
    (theta,) = SMALL.part("matrix").leaves()
    optimizer = Ranger21([theta], lr=0.25, total_steps=10, sign_of_the_direction={"scale": 2.0})
    assert ninth.id in optimizer.config.components
    before = theta.detach().clone()
    off = dict.fromkeys(RANGER21, False)
    optimizer = Ranger21([theta], lr=0.25, weight_decay=0, sign_of_the_direction={"scale": 2.0}, **off)
    theta.grad = torch.randn_like(theta)
    optimizer.step()
    torch.testing.assert_close(theta, before - 0.25 * 2 * theta.grad.sign())


def test_a_ninth_component_joins_populations_configs_and_messages(ninth: type[Component], tmp_path: Path) -> None:
    configs = [config(**{ninth.id: {}}), config(), config(**eight(ninth) | {ninth.id: {"scale": 0.5}})]
    for c, row in zip(configs, populate(configs, SMALL), strict=True):
        assert_close(row, follow(c, SMALL), 1e-12)
        c.save(tmp_path / "config.toml")
        assert Config.load(tmp_path / "config.toml") == c
    with pytest.raises(ConfigError, match="did you mean 'sign_of_the_direction'"):
        Config(components={"sign_of_direction": {}})
    with pytest.raises(ConfigError, match="did you mean 'scale'"):
        Config(components={ninth.id: {"scael": 1.0}})


def test_a_component_without_a_reference_is_told_where_it_goes(ninth: type[Component]) -> None:
    for company in ({}, eight(ninth)):
        with pytest.raises(NotImplementedError, match=r"in tests/reference_sign_of_the_direction\.py"):
            reference(config(**company | {ninth.id: {}}))


def test_two_components_of_the_same_name_are_refused() -> None:
    name = RANGER21[0]
    with pytest.raises(ConfigError, match=f"'{name}' exists already"):
        type("AdaptiveGradientClipping", (Component,), {"stage": Stage.GRADIENT})
    assert registry[name].__module__ == f"autoranger.components.{name}"

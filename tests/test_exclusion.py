"""Which components go together, and that all that do compose: many pairs, alone and in one population."""

from __future__ import annotations

import enum
import random
from collections.abc import Collection, Iterator
from itertools import combinations

import pytest
import torch

from autoranger import Component, Config, ConfigError, Role, Stage
from autoranger.components.core.component import conflicts, registry
from autoranger.components.core.step import Step
from autoranger.components.order import just_before
from tests.conftest import PROBLEM, assert_close, follow, populate
from tests.references import in_any_company, reference

PROBLEM_OF_PAIRS = PROBLEM.part("matrix", "outliers", "sometimes", "vector", "zero bias").first(8)

PAIRS = random.Random(0).sample([pair for pair in combinations(registry, 2) if not conflicts(pair)], 200)
"""Two components that go together; of all such pairs, several hundred, enough that each component is in about ten."""

FOLLOWED = [name for name in registry if name in in_any_company()]
"""Components whose references follow all their mixtures."""


def config(*names: str) -> Config:
    return Config(lr=1e-2, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1, components=dict.fromkeys(names, True))


@pytest.mark.parametrize("name", FOLLOWED)
def test_pairs_compose_as_the_reference_says(name: str) -> None:
    for pair in PAIRS:
        if pair[0] == name and pair[1] in FOLLOWED:
            c = config(*pair)
            expected = reference(c)(c, PROBLEM_OF_PAIRS.params, PROBLEM_OF_PAIRS.grads, PROBLEM_OF_PAIRS.total_steps)
            assert_close(follow(c, PROBLEM_OF_PAIRS), expected)


def test_pairs_are_the_same_among_all_others() -> None:
    configs = [config(*pair) for pair in PAIRS]
    for c, row in zip(configs, populate(configs, PROBLEM_OF_PAIRS), strict=True):
        assert_close(row, follow(c, PROBLEM_OF_PAIRS), 1e-12)


def crowds(count: int, names: Collection[str]) -> Iterator[list[str]]:
    """Random sets of these components that go together, none of which has room for another."""
    rng = random.Random(0)
    for _ in range(count):
        crowd: list[str] = []
        for name in rng.sample(list(names), len(names)):
            if not conflicts([*crowd, name]):
                crowd.append(name)
        yield crowd


def test_crowds_compose_as_the_reference_says() -> None:
    for c in (config(*crowd) for crowd in crowds(40, FOLLOWED)):
        expected = reference(c)(c, PROBLEM_OF_PAIRS.params, PROBLEM_OF_PAIRS.grads, PROBLEM_OF_PAIRS.total_steps)
        assert_close(follow(c, PROBLEM_OF_PAIRS), expected)


def test_crowds_are_the_same_among_each_other() -> None:
    configs = [config(*crowd) for crowd in crowds(40, registry)]
    for c, row in zip(configs, populate(configs, PROBLEM_OF_PAIRS), strict=True):
        assert_close(row, follow(c, PROBLEM_OF_PAIRS), 1e-12)


def test_exclusion_is_mutual_and_of_others() -> None:
    for name, cls in registry.items():
        assert not cls.excludes(cls)
        for other in registry.values():
            assert bool(cls.excludes(other)) == bool(other.excludes(cls)), (name, other.id)


@pytest.mark.parametrize(
    "alternatives",
    [
        ("cosine_annealing", "explore_exploit", "flat_cosine", "one_cycle"),
        ("linear_warmup", "one_cycle"),
        ("madgrad", "sgd_momentum"),
        ("annealed_trust_ratio", "lars_trust_ratio", "trust_ratio"),
        ("l2_decay", "lars_trust_ratio"),
        # Without effect: what there is nothing for.
        ("sgd_momentum", "amsgrad"),
        ("sgd_momentum", "softplus_denominator"),
        ("madgrad", "rectification"),
        ("madgrad", "positive_negative_momentum"),
        ("l2_decay", "norm_loss"),
        ("l2_decay", "stable_weight_decay"),
    ],
)
def test_alternatives_exclude_each_other(alternatives: tuple[str, ...]) -> None:
    assert conflicts(alternatives) == list(combinations(alternatives, 2))


@pytest.mark.parametrize(
    "pair",
    [
        ("linear_warmup", "cosine_annealing"),
        ("one_cycle", "chebyshev_steps"),
        ("adabelief_variance", "positive_negative_momentum"),
        ("rectification", "softplus_denominator"),
        ("sgd_momentum", "trust_ratio"),
        ("sgd_momentum", "stable_weight_decay"),
        ("global_norm_clipping", "adaptive_gradient_clipping"),
    ],
)
def test_these_go_together(pair: tuple[str, str]) -> None:
    assert not conflicts(pair)
    assert set(config(*pair).components) == set(pair)


def test_both_are_a_clear_error() -> None:
    with pytest.raises(ConfigError) as error:
        config("explore_exploit", "cosine_annealing")
    assert str(error.value) == (
        "explore_exploit and cosine_annealing exclude each other: both set the annealing; "
        "set explore_exploit=False or cosine_annealing=False."
    )
    with pytest.raises(ConfigError, match="sgd_momentum leaves amsgrad without effect"):
        config("amsgrad", "sgd_momentum")


def test_conflicts_of_an_unknown_component() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lookahead'"):
        conflicts(["look_ahead", "amsgrad"])


def test_a_role_that_does_not_exist_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match=r"mistyped.replaces holds 'annealling', but must hold members such as Role"):

        class Mistyped(Component, register=False):
            stage = Stage.RATE
            replaces = frozenset({"annealling"})  # type: ignore[arg-type]


def test_a_role_of_ones_own_excludes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(enum.Enum):
        AVERAGE = "average of the weights"

    class One(Component, register=False):
        stage = Stage.WEIGHTS
        replaces = frozenset({Own.AVERAGE})

    class Other(One, register=False):
        pass

    assert One.excludes(Other) == "both set the average of the weights"
    assert not One.excludes(registry["lookahead"])


def test_a_component_acts_last_in_its_stage_unless_it_names_one_to_act_before() -> None:
    class Last(Component, register=False):
        stage = Stage.GRADIENT

    class Earlier(Last, register=False):
        acts_before = "gradient_centralization"

    assert all(other.position < Last.position for other in registry.values())
    neighbours = [registry[name].position for name in ("adaptive_gradient_clipping", "gradient_centralization")]
    assert neighbours[0] < Earlier.position < neighbours[1]
    assert neighbours[0] < just_before(Earlier.position) < Earlier.position


@pytest.mark.parametrize("name", ["gradient_centralisation", "lookahead", "mine"])
def test_what_a_component_acts_before_is_one_of_its_stage(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown component of the gradient stage for mine to act before: '{name}'"):

        class Mine(Component, register=False):
            stage = Stage.GRADIENT
            acts_before = name


@pytest.mark.parametrize("annealing", [c for c in registry if registry[c].replaces == {Role.ANNEALING}])
def test_schedules_that_overlap_combine_by_the_smaller_factor(annealing: str) -> None:
    whole = {"fraction": 1.0} if "fraction" in registry[annealing].hypers else {}
    chosen = {"linear_warmup": {"fraction": 0.6}, annealing: whole}

    def factors(components: dict[str, dict[str, float]]) -> list[float]:
        step = Step(
            [Config(betas=(0.9, 0.9999), components=components)], 10, dtype=torch.float64, device=torch.device("cpu")
        )
        found = []
        for _ in range(10):
            step.steps += 1
            found.append(step.scalars().rate.item())
        return found

    alone = [factors({name: settings}) for name, settings in chosen.items()]
    together = factors(chosen)
    assert together == pytest.approx([min(pair) for pair in zip(*alone, strict=True)])
    assert together != pytest.approx([a * b for a, b in zip(*alone, strict=True)])

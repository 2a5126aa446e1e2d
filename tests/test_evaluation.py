"""The weights to evaluate with: swapped in and out exactly, saved with the others, scored by populations."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from autoranger import Config, ConfigError
from autoranger.components.core.component import Role, registry
from autoranger.components.optimizer.evaluation import TRAINED
from autoranger.search.population import Population
from tests import toy
from tests.conftest import SMALL, TINY, advance, arrays, assert_close, differ, follow
from tests.test_population import alone

AVERAGES = [name for name, cls in registry.items() if Role.EVALUATION in cls.replaces]
each_average = pytest.mark.parametrize("name", AVERAGES)


def config(name: str) -> Config:
    return Config(lr=1e-2, weight_decay=0.1, components={name: {}})


def build(name: str, dtype: torch.dtype = torch.float64, problem=SMALL):
    params = problem.leaves(dtype)
    return params, config(name).build(params, total_steps=problem.total_steps)


@each_average
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_looks_at_the_evaluated_weights_change_nothing(way: None, name: str, dtype: torch.dtype) -> None:
    (params, optimizer), (twins, other) = build(name, dtype), build(name, dtype)
    first = int(name == "schedule_free")  # update, after which all its weights are the same
    for grads in SMALL.grads:
        advance(optimizer, params, [grads])
        advance(other, twins, [grads])
        trained = arrays(params)
        optimizer.eval()
        shown = arrays(params)
        assert differ(shown, trained) or optimizer.state[params[2]]["step"] == first
        optimizer.eval()
        assert not differ(arrays(params), shown)
        optimizer.train()
        optimizer.train()
        assert not differ(arrays(params), trained)
        assert all(TRAINED not in optimizer.state[p] for p in params)
    assert not differ(arrays(params), arrays(twins))
    for p, twin in zip(params, twins, strict=True):
        assert all(torch.equal(x, other.state[twin][key]) for key, x in optimizer.state[p].items())


@each_average
@pytest.mark.parametrize("half", [1, 7])
@pytest.mark.parametrize("evaluating", [False, True])
def test_a_checkpoint_of_either_mode_holds_both(way: None, name: str, half: int, evaluating: bool) -> None:
    params, optimizer = build(name)
    advance(optimizer, params, SMALL.grads[:half])
    optimizer.eval()
    shown = arrays(params)
    if not evaluating:
        optimizer.train()
    file = io.BytesIO()
    torch.save({"params": params, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = [nn.Parameter(p.detach().clone()) for p in saved["params"]]
    again = config(name).build(resumed, total_steps=SMALL.total_steps)
    again.load_state_dict(saved["optimizer"])
    with again.evaluation():
        assert not differ(arrays(resumed), shown)
    if evaluating:
        with pytest.raises(ConfigError, match=r"call optimizer.train\(\) before"):
            again.step()
    again.train()
    advance(again, resumed, SMALL.grads[half:])
    again.eval()
    assert not differ(arrays(resumed), follow(config(name), SMALL))


@each_average
def test_copies_and_moved_states_go_on(way: None, name: str) -> None:
    params, optimizer = build(name)
    advance(optimizer, params, SMALL.grads[:5])
    optimizer.eval()
    params, optimizer = copy.deepcopy((params, optimizer))
    for entry in optimizer.state.values():  # as offloading does
        entry |= {key: x.clone() for key, x in entry.items()}
    optimizer.train()
    advance(optimizer, params, SMALL.grads[5:])
    optimizer.eval()
    assert not differ(arrays(params), follow(config(name), SMALL))


@each_average
def test_a_state_that_lacks_the_trained_weights_is_refused(name: str) -> None:
    params, optimizer = build(name)
    advance(optimizer, params, SMALL.grads[:2])
    optimizer.eval()
    saved = optimizer.state_dict()
    for entry in saved["state"].values():
        entry.pop(TRAINED)
    with pytest.raises(ConfigError, match="lacks trained"):
        build(name)[1].load_state_dict(saved)


@each_average
def test_weights_that_are_loaded_while_evaluating_are_trained_on(way: None, name: str) -> None:
    found = []
    for while_evaluating in (False, True):
        params, optimizer = build(name, problem=TINY)
        advance(optimizer, params, TINY.grads[:4])
        if while_evaluating:
            optimizer.eval()
        with torch.no_grad():
            params[0].fill_(7.0)
        optimizer.train()
        advance(optimizer, params, TINY.grads[4:])
        optimizer.eval()
        found.append(arrays(params))
    assert not differ(*found)


def test_a_config_without_an_average_notices_nothing(way: None) -> None:
    params = SMALL.leaves()
    optimizer = Config.preset("adamw").build(params)
    advance(optimizer, params, SMALL.grads[:3])
    before, state = arrays(params), optimizer.state_dict()
    optimizer.eval()
    assert not differ(arrays(params), before)
    assert optimizer.state_dict()["param_groups"] == state["param_groups"]
    optimizer.step()
    optimizer.train()
    optimizer.step()


@each_average
def test_an_optimizer_without_a_step_evaluates_what_there_is(name: str) -> None:
    params, optimizer = build(name)
    before = arrays(params)
    with optimizer.evaluation():
        assert not differ(arrays(params), before)
    advance(optimizer, params, SMALL.grads)
    optimizer.eval()
    assert not differ(arrays(params), follow(config(name), SMALL))


@each_average
def test_short_states_keep_the_average_in_single_precision(way: None, name: str) -> None:
    params = TINY.leaves(torch.float32)
    optimizer = config(name).build(params, total_steps=TINY.total_steps, state_dtype=torch.bfloat16)
    advance(optimizer, params, TINY.grads)
    optimizer.eval()
    kept = {k: x.dtype for k, x in optimizer.state[params[0]].items() if k.startswith(name) or k == TRAINED}
    assert set(kept.values()) == {torch.float32}
    for x, y in zip(arrays(params), follow(config(name), TINY), strict=True):
        np.testing.assert_allclose(x, y, atol=0.02)


def test_each_kind_of_parameters_may_have_its_own(way: None) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    c = Config(lr=0.1, components={"weight_average": {}}, kinds={"vector": {"components": {"weight_average": False}}})
    optimizer = c.build(model)
    for _ in range(3):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimizer.eval()
    assert {key for key, p in model.named_parameters() if not torch.equal(p, before[key])} == {"0.weight", "1.weight"}


@pytest.mark.parametrize("kind", [toy.Toy, toy.Refused])
@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses")
def test_a_population_scores_them(compiler: None, kind: type[toy.Toy]) -> None:
    """With others beside, on the way, and at the end; an optimizer of one's own agrees."""
    configs = [Config(lr=0.03), *(Config(lr=0.03, components={name: {}}) for name in AVERAGES)]
    found = Population(kind()).train(configs, toy.SEEDS, 20, curve=4)
    expected = [[alone(kind(), c, seed, 20) for seed in toy.SEEDS] for c in configs]
    np.testing.assert_allclose(found["valid"], expected, rtol=2e-4)
    np.testing.assert_array_equal(found["curve"][..., -1], found["valid"])
    assert len(np.unique(found["valid"])) == found["valid"].size


@pytest.mark.parametrize("settings", [{}, {"warmup": 5, "beta": 0.95}])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_schedule_free_is_the_authors(settings: dict[str, float], decay: float) -> None:
    package = pytest.importorskip("schedulefree", reason="schedulefree is not installed; make test installs it")
    problem = SMALL.part("matrix", "zero row", "vector", "zero bias")  # whose gradients are always there
    params, theirs = problem.leaves(), problem.leaves()
    c = Config.preset("schedule_free_adamw", weight_decay=decay, components={"schedule_free": settings})
    optimizer = c.build(params)
    other = package.AdamWScheduleFree(
        theirs,
        lr=c.lr,
        betas=(settings.get("beta", 0.9), 0.999),
        weight_decay=decay,
        warmup_steps=settings.get("warmup", 0),
        foreach=False,
    )
    other.train()
    for grads in problem.grads:
        advance(optimizer, params, [grads])
        advance(other, theirs, [grads])
        assert_close(arrays(params), arrays(theirs), 1e-11)
        optimizer.eval()
        other.eval()
        assert_close(arrays(params), arrays(theirs), 1e-11)
        optimizer.train()
        other.train()

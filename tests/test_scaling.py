"""Building for another scale than a config was found at."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoranger import Config, ConfigError, load
from autoranger.components.core import laws
from autoranger.components.core.degrees import degrees_of
from autoranger.components.core.kinds import KINDS
from autoranger.components.core.laws import Degrees
from autoranger.components.core.proxy import depth_of, proxy_of, shapes_of
from autoranger.search.population.population import Population
from autoranger.search.tasks.shakespeare import Transformer
from tests.test_kinds import alone
from tests.toy import Text, Toy


def gpt(width: int = 8, blocks: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return Transformer(characters=7, context=8, width=width, heads=2, blocks=blocks, hidden=2 * width)


def tuned(**fields: Any) -> Config:
    return Config(lr=0.01, weight_decay=0.1, proxy=proxy_of(gpt(), batch_size=8, steps=400, examples=10**6), **fields)


def test_the_law_of_width_is_mups_table() -> None:
    """Table 3 of arXiv 2203.03466: the exponent of the fan for Adam and for SGD, for hidden weights and for biases."""
    adam, sgd, wide = Degrees(0, 0), Degrees(1, 0), 4.0
    assert laws.width("hidden", wide, wide, adam) == 1 / wide
    assert laws.width("hidden", wide, wide, sgd) == 1
    for kind in ("vector", "embedding"):
        assert laws.width(kind, 1, wide, adam) == 1
        assert laws.width(kind, 1, wide, sgd) == wide


def test_a_heads_updates_need_not_align_with_what_is_below() -> None:
    """arXiv 2407.05872, no alignment: an update's numbers of size η change an output by η·√fan_in."""
    for degrees in (Degrees(0, 0), Degrees(1, 0)):
        assert laws.width("head", 4.0, 1.0, degrees) == 0.5
    assert laws.width("head", 4.0, 1.0, Degrees(0, 1)) == 1  # a trust ratio: weights are smaller by as much


def test_a_head_that_shares_its_weights_with_an_embedding_has_that_ones_rate() -> None:
    def tied(width: int, *, apart: bool) -> nn.Module:
        net = nn.Sequential(nn.Embedding(9, width), nn.Linear(width, width), nn.Linear(width, 9, bias=False))
        if not apart:
            net[2].weight = net[0].weight
        return net

    for apart, factor in ((True, 0.5), (False, 1.0)):
        proxy = proxy_of(tied(8, apart=apart), batch_size=8, steps=400)
        groups = Config(lr=0.01, proxy=proxy).build(tied(32, apart=apart), total_steps=400, batch_size=8).param_groups
        assert {g["kind"]: g["lr"] for g in groups}["head"] == pytest.approx(0.01 * factor)


def test_the_other_laws() -> None:
    adam, sgd = Degrees(0, 0), Degrees(1, 0)
    assert (laws.batch(4, adam), laws.batch(4, sgd)) == (2, 4)  # arXiv 2205.10287, definition 5 and 1
    assert laws.depth("hidden", 4, adam) == 0.5
    assert {laws.depth(kind, 4, adam) for kind in ("vector", "head", "embedding")} == {1}
    assert laws.length(1, 10) == pytest.approx(0.479, abs=1e-3)
    assert laws.length(4, 1) * laws.batch(4, adam) == 1  # arXiv 2512.22382: only the number of steps counts
    assert laws.decay(0.25, 10) * 0.25 * 10 == 1


@pytest.mark.parametrize(
    ("preset", "degrees"),
    [
        ("adamw", (0, 0)),
        ("ranger21", (0, 0)),
        ("radam", (0, 0)),
        ("sgd", (1, 0)),
        ("lars", (0, 1)),
        ("lamb", (0, 1)),
        ("madgrad", (1 / 3, 0)),
    ],
)
def test_how_updates_grow_is_measured(preset: str, degrees: tuple[float, float]) -> None:
    assert degrees_of(Config.preset(preset)) == pytest.approx(degrees)


@pytest.mark.parametrize("preset", ["adamw", "sgd", "lamb"])
def test_with_the_law_of_width_outputs_change_as_much_at_every_width(preset: str) -> None:
    """What mu-parametrization is for: of a hidden layer, after a few steps, the change of what it computes."""

    def change(width: int, *, scale: bool) -> float:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        net[-1].weight.data.mul_(64**0.5 / width**0.5)  # as the paper has its output layer
        net.requires_grad_(False)[2].weight.requires_grad_(True)
        lr = {"adamw": 1e-3, "sgd": 0.3, "lamb": 3e-2}[preset]
        config = Config.preset(preset, lr=lr, weight_decay=0, proxy=proxy)
        optimizer = config.build(net, total_steps=4, batch_size=32, scale=scale)
        x = torch.randn(32, 16)
        before = net[2](net[:2](x)).clone()
        for _ in range(4):
            optimizer.zero_grad()
            (net(x) - x.sum(dim=1, keepdim=True)).square().mean().backward()
            optimizer.step()
        return float((net[2](net[:2](x)) - before).detach().square().mean().sqrt())

    small = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    proxy = proxy_of(small, batch_size=32, steps=4)
    with_law = change(1024, scale=True) / change(64, scale=True)
    assert 0.5 < with_law < 2
    if preset != "sgd":
        assert change(1024, scale=False) / change(64, scale=False) > 1.5 * with_law


def test_a_wider_deeper_longer_training() -> None:
    groups = tuned().build(gpt(32, blocks=8), total_steps=1600, batch_size=32).param_groups
    by_kind = {g["kind"]: g for g in groups}
    assert [g["kind"] for g in groups] == [*KINDS]
    common = 4**-0.32
    assert by_kind["vector"]["lr"] == pytest.approx(0.01 * common)
    assert by_kind["hidden"]["lr"] == pytest.approx(0.01 * common / 4 / 2)
    assert by_kind["head"]["lr"] == pytest.approx(0.01 * common / 2)
    assert by_kind["hidden"]["laws"] == pytest.approx(
        {"width": 1 / 4, "depth": 1 / 2, "batch": 2, "length": common / 2}
    )
    for group in groups:  # the share of the training over which weights are an average
        assert group["lr"] * group["weight_decay"] * 1600 == pytest.approx(0.01 * 0.1 * 400)


@pytest.mark.parametrize(
    ("examples", "steps", "batch_size", "first"),
    [
        (1_000_000, 1600, 8, 4),
        (800, 1600, 8, 1),
        (None, 1600, 8, 1),
        (6400, 1600, 8, 2),
        (800, 100, 32, 1 / 4),
        (None, 100, 32, 1 / 4),
        (1_000_000, 400, 32, 1),
        (None, 400, 32, 1),
    ],
    ids=[
        "new data",
        "repeated",
        "unknown",
        "half new",
        "as many epochs",
        "as many epochs, unknown",
        "larger batches",
        "larger batches, unknown",
    ],
)
def test_decay_follows_the_first_pass_over_the_data(
    examples: int | None, steps: int, batch_size: int, first: float
) -> None:
    """Weights are an average over 1/(η·λ) steps, a share of those of the first pass, at that training's rate."""
    config = replace(tuned(), proxy=proxy_of(gpt(), batch_size=8, steps=400, examples=examples))
    rate = first**-0.32  # of arXiv 2512.22382, where only the number of steps counts
    for group in config.build(gpt(), total_steps=steps, batch_size=batch_size).param_groups:
        assert group["lr"] == pytest.approx(0.01 * (steps / 400) ** -0.32)
        assert group["weight_decay"] == pytest.approx(0.1 / (rate * first))


def test_the_real_training_may_have_more_data() -> None:
    config = replace(tuned(), proxy=proxy_of(gpt(), batch_size=8, steps=400, examples=3200))
    for examples, first in ((None, 1), (3200, 1), (6400, 2), (10**6, 4)):
        for group in config.build(gpt(), total_steps=1600, batch_size=8, examples=examples).param_groups:
            assert group["weight_decay"] == pytest.approx(0.1 / (first**-0.32 * first))


@pytest.mark.parametrize(
    ("config", "given", "how"),
    [
        (tuned(), lambda: gpt(32), {"scale": False}),
        (replace(tuned(), proxy={}), lambda: gpt(32), {}),
        (tuned(), lambda: gpt(8), {"batch_size": 8}),
        (tuned(), lambda: gpt(32).parameters(), {}),
    ],
    ids=["scale=False", "no proxy", "the proxy itself", "bare parameters"],
)
def test_nothing_changes(config: Config, given: Any, how: dict[str, Any]) -> None:
    for group in config.build(given(), total_steps=400, **how).param_groups:
        assert (group["lr"], group["weight_decay"]) == (0.01, 0.1)
        assert "laws" not in group


def test_kinds_and_laws_multiply() -> None:
    config = tuned(kinds={"hidden": {"lr_factor": 3}, "vector": {"weight_decay": 0}})
    by_kind = {g["kind"]: g for g in config.build(gpt(32), total_steps=400, batch_size=8).param_groups}
    assert by_kind["hidden"]["lr"] == pytest.approx(0.01 * 3 / 4)
    assert by_kind["hidden"]["lr_factor"] == pytest.approx(3 / 4)
    assert by_kind["vector"]["weight_decay"] == 0


def test_a_scaled_optimizer_trains_and_goes_on() -> None:
    net = gpt(16)
    optimizer = tuned().build(net, total_steps=800, batch_size=16)
    x = torch.randint(0, 7, (3, 8))
    before = F.cross_entropy(net(x).flatten(0, 1), x.flatten())
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x).flatten(0, 1), x.flatten())
        loss.backward()
        optimizer.step()
    assert loss < before
    again = tuned().build(net, total_steps=800, batch_size=16)
    again.load_state_dict(optimizer.state_dict())
    assert [g["laws"] for g in again.param_groups] == [g["laws"] for g in optimizer.param_groups]


def test_depth_is_the_number_of_blocks() -> None:
    assert depth_of(shapes_of(gpt(blocks=3))) == 3
    assert depth_of(shapes_of(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)))) == 1
    assert depth_of(["h.0.a.0.w", "h.0.a.1.w", "h.0.a.2.w", "h.1.a.0.w"]) == 2


def test_the_record_is_kept_in_the_file(tmp_path: Path) -> None:
    config = tuned()
    config.save(tmp_path / "tuned.toml")
    assert load(tmp_path / "tuned.toml") == config
    layers = config.proxy["layers"]
    assert (layers["blocks.*.merge.weight"]["fan_in"], layers["blocks.*.perceptron.2.weight"]["kind"]) == (8, "hidden")
    assert layers["characters.weight"] | {"gain": 0} == {"kind": "embedding", "fan_in": 1, "fan_out": 8, "gain": 0}


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        (3, "proxy must be a table"),
        ({"steps": 0}, "proxy.steps is 0, but must be a whole number from 1"),
        ({"width": 3}, "proxy.width is unknown"),
        ({"layers": {"a": {"kind": "hidden"}}}, "proxy.layers.a must be a table with kind, fan_in, fan_out, gain"),
        ({"layers": {"a": {"kind": "x", "fan_in": 1, "fan_out": 1, "gain": 1}}}, "unknown kind of parameters 'x'"),
        (
            {"layers": {"a": {"kind": "head", "fan_in": 0, "fan_out": 1, "gain": 1}}},
            "fan_in is 0, but must be a number",
        ),
    ],
)
def test_records_that_are_none(proxy: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(proxy=proxy)


def test_a_batch_size_of_bare_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match="pass the model itself"):
        tuned().build(gpt(32).parameters(), total_steps=400, batch_size=64)
    tuned().build(gpt(32).parameters(), total_steps=400, batch_size=64, scale=False)


def test_a_batch_size_that_is_none() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0, but must be a whole number from 1"):
        tuned().build(gpt(), total_steps=3, batch_size=0)


MODEL = """
import torch
from torch import nn
from tests.test_scaling import gpt

def make():
    return gpt(32)

def small_weights():
    model = gpt(32)
    for p in model.parameters():
        p.data.mul_(0.1)
    return model

def other():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

def nothing():
    return 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "my_model.py").write_text(MODEL)
    tuned(kinds={"vector": {"components": {"lookahead": True}}}).save(tmp_path / "tuned.toml")
    return str(tmp_path / "my_model.py")


def test_show_for_a_model(autoranger: Any, file: str) -> None:
    config = str(Path(file).with_name("tuned.toml"))
    _, shown, _ = autoranger("show", config, "--for", f"{file}:make", "--steps", "1600", "--batch-size", "8")
    assert all(word in shown for word in ("hidden", "embedding", "head", "vector", "width × 0.25", "blocks.*.merge")), (
        shown
    )
    assert "vector: with lookahead" in shown
    assert "not said" not in shown
    found = json.loads(autoranger("show", config, "--for", f"{file}:make", "--json")[1])["for"]
    assert found["parts"][0]["laws"] == {"width": 0.25}
    assert any("batch_size=… is not said" in note for note in found["notes"])
    assert "times the proxy's standard deviation" in autoranger("show", config, "--for", f"{file}:small_weights")[1]
    assert "the proxy has no parameter like 0.weight" in autoranger("show", config, "--for", f"{file}:other")[1]
    assert "hidden" in autoranger("show", "adamw", "--for", f"{file}:other")[1]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("", "names no model"),
        (":mak", "did you mean 'make'"),
        (":nothing", "makes a int; it must make an nn.Module"),
        (":gpt2", "did you mean 'gpt'"),
    ],
)
def test_models_that_are_none(autoranger: Any, file: str, model: str, message: str) -> None:
    status, _, error = autoranger("show", "adamw", "--for", f"{file}{model}")
    assert (status, message in error) == (2, True), error


def test_a_search_trains_a_scaled_config_as_the_optimizer_does() -> None:
    task = Text()
    task.model = lambda: gpt(24)  # type: ignore[method-assign]
    task.batch_size = 16
    proxy = proxy_of(gpt(8), batch_size=8, steps=2)
    configs = [Config(lr=0.02, proxy=proxy), Config(lr=0.02), Config(lr=0.02, kinds={"head": {"lr_factor": 0}})]
    values = Population(task).train(configs, [0], steps=5)["valid"][:, 0]
    for config, value in zip(configs, values, strict=True):
        assert value == pytest.approx(alone(task, config, steps=5), rel=1e-4)
    assert len({float(v) for v in values}) == 3


def test_a_search_says_what_its_proxy_was() -> None:
    from autoranger.search.proxy import Proxy

    scale = Proxy(Toy(), "metric").scale
    assert (scale["steps"], scale["batch_size"], scale["examples"], scale["depth"]) == (12, 8, 48, 1)
    assert [layer["kind"] for layer in scale["layers"].values()] == ["hidden", "vector", "head", "vector"]
    assert [layer["fan_in"] for layer in scale["layers"].values()] == [4, 1, 6, 1]

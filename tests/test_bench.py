"""`autoranger bench`: who takes part, what is measured, what is drawn, and what is said about mistakes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from autoranger import bench as benchmark
from autoranger.bench import MODELS, PEERS, REFERENCE, Bench, bench, contestants, state_numel, take_turns
from autoranger.components.core.component import registry
from autoranger.components.core.errors import ConfigError
from autoranger.figures import check_figure, draw_bench

SIZES = {"mlp": (26_122, 6), "gpt": (10_770_816, 76), "resnet50": (25_557_032, 161), "vit": (5_717_416, 152)}


@pytest.fixture(scope="module")
def small() -> Bench:
    return bench("mlp", rounds=2, peers=True)


@pytest.mark.parametrize("name", MODELS)
def test_models_have_their_known_size(name: str) -> None:
    shapes = [torch.Size(shape) for shape in MODELS[name]()]
    assert (sum(s.numel() for s in shapes), len(shapes)) == SIZES[name]


def test_everyone_is_timed(small: Bench) -> None:
    names = [t.name for t in small.timings]
    assert set(names) | small.skipped.keys() == contestants(True).keys()
    assert len(names) == len(set(names))
    assert {f"+ {name}" for name in registry} <= set(names)
    assert not {name for name in small.skipped if name not in PEERS}
    for t in small.timings:
        assert 0 < t.low <= t.median <= t.high
        assert t.first > 0
        assert t.ratio > 0
    (reference,) = [t for t in small.timings if t.name == REFERENCE]
    assert reference.ratio == 1


def test_state_is_what_each_keeps(small: Bench) -> None:
    state = {t.name: round(t.state, 3) for t in small.timings}
    assert state["adamw"] == state[REFERENCE] == 2
    assert state["ranger21"] == 5
    assert state["+ sgd_momentum"] == 1


def test_a_slower_optimizer_is_measured_to_be_slower() -> None:
    """The clock is a real one: half a million numbers against a few."""
    few, many = (nn.Parameter(torch.ones(size)) for size in (10, 2_000_000))
    few.grad, many.grad = torch.ones_like(few), torch.ones_like(many)
    optimizers = {name: torch.optim.AdamW([p]) for name, p in (("few", few), ("many", many))}
    seconds = take_turns(optimizers, [few], 9)
    assert (seconds["many"] > seconds["few"]).sum() >= 8
    assert state_numel(optimizers["many"]) == 4_000_000


def test_peers_cannot_spoil_the_gradients_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoiler(torch.optim.SGD):
        def step(self) -> None:  # type: ignore[override]
            for p in self.param_groups[0]["params"]:
                p.grad.fill_(torch.nan)

    seen: list[bool] = []

    class Witness(torch.optim.SGD):
        def step(self) -> None:  # type: ignore[override]
            seen.append(all(bool(p.grad.isfinite().all()) for p in self.param_groups[0]["params"]))

    names = {"a peer": Spoiler, "a witness": Witness}
    monkeypatch.setitem(PEERS, "a peer", Spoiler)
    monkeypatch.setattr(benchmark, "contestants", lambda _: {REFERENCE: torch.optim.SGD, **names})
    bench("mlp", rounds=3)
    assert seen
    assert all(seen)


def test_a_package_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ranger21", None)
    found = bench("mlp", rounds=1, peers=True)
    assert "ranger21" in found.skipped["ranger21, its authors' package"]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_figure_is_one(small: Bench, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"figure{suffix}"
    check_figure(path)
    draw_bench(small, path)
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)


def test_a_figure_that_cannot_be_drawn_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"must end in .png, .svg or .pdf"):
        check_figure(tmp_path / "x.txt")
    with pytest.raises(ConfigError, match="there is no folder"):
        check_figure(tmp_path / "missing" / "x.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install .*matplotlib"):
        check_figure(tmp_path / "x.png")


def test_an_unknown_model_is_said() -> None:
    with pytest.raises(ConfigError, match="unknown model 'mpl'; did you mean 'mlp'"):
        bench("mpl")

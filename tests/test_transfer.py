"""Predicting the best rate of a larger training from small ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autoranger import Config, ConfigError, Task, load
from autoranger.search import transfer as module
from autoranger.search.space import lr_grid
from autoranger.search.tasks import shipped
from autoranger.search.transfer import Stop, extrapolate, on_the_way, summit, transfer
from tests.toy import Toy


class Wide(Toy):
    """The toy with a model that has a scale."""

    def model(self, scale: float = 1.0) -> nn.Module:
        return nn.Sequential(nn.Linear(4, round(6 * scale)), nn.Tanh(), nn.Linear(round(6 * scale), 2))


class Loaded(Task):
    """The toy's data in loaders, of batches that the task does not set."""

    name, steps = "loaded", 12

    def data(self) -> dict[str, Any]:
        return {part: DataLoader(TensorDataset(*split), batch_size=4) for part, split in Toy().data().items()}

    def model(self) -> nn.Module:
        return Toy().model()


def stop(share: float, best: float, error: float = 0.02) -> Stop:
    return Stop(share, 1.0, 8, 12, [], [], best, error)


def test_laws_that_hold_are_followed() -> None:
    centre, spread, drift = extrapolate([stop(0, 0.1), stop(0.2, 0.1), stop(0.4, 0.1)])
    assert centre == pytest.approx(0.1, abs=0.01)
    assert drift[0] == pytest.approx(0, abs=0.02)
    assert 0.05 < spread < 0.3


def test_a_drift_is_followed_as_far_as_it_is_known() -> None:
    """Bayes with a prior of no drift: less than the line through the points, the more noise the less."""
    line = [0.0, -0.1, -0.2]
    sharp, noisy = ([stop(s, y, e) for s, y in zip((0, 0.2, 0.4), line, strict=True)] for e in (0.001, 0.5))
    assert -0.5 < extrapolate(sharp)[0] < extrapolate(noisy)[0] < 0
    assert extrapolate(sharp)[1] < extrapolate(noisy)[1]


def test_intervals_cover_what_they_say() -> None:
    """Of best rates that drift as the prior has it: 90 % of intervals hold the one at the target."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(2000):
        offset, drift = rng.normal(0, module.OFFSET), rng.normal(0, module.DRIFT)
        noise = rng.normal(0, np.hypot(0.05, module.GRID), 3)
        stops = [stop(s, offset + drift * s + e, 0.05) for s, e in zip(module.SHARES, noise, strict=True)]
        centre, spread, _ = extrapolate(stops)
        hits.append(abs(centre - offset - drift) < module.NORMAL * spread)
    assert 0.88 < np.mean(hits) < 0.92


def test_the_best_rate_is_the_top_of_a_parabola() -> None:
    decades = np.arange(-3, 4) / 4
    values = -((decades[:, None] - np.array([0.1, 0.12, 0.14])) ** 2)
    best, error = summit(decades, values)
    assert best == pytest.approx(0.12)
    assert error == pytest.approx(np.std([0.1, 0.12, 0.14], ddof=1) / 3**0.5, rel=1e-3)  # as of a mean
    values[5:] = np.nan
    assert summit(decades, values)[0] == pytest.approx(0.12)


def test_stops_lie_evenly_in_logarithms() -> None:
    task = Wide()
    there, scale = on_the_way(task, (16.0, 128, 1200), 0.5)
    assert (scale, there.batch_size, there.steps) == (4, 32, 120)
    assert there.model()[0].out_features == 24
    assert (task.batch_size, task.steps, task.model()[0].out_features) == (8, 12, 6)


def test_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARES", (0.0, 0.5))
    found = transfer(Wide(), Config(lr=1e-4), scale=4, steps=30, batch_size=16, seeds=2)
    assert found.low < found.lr < found.high
    assert [s.share for s in found.stops] == [0, 0.5]
    assert not found.noted
    first = found.stops[0]
    assert first.rates == sorted(first.rates)
    assert first.values.index(max(first.values)) not in (0, len(first.values) - 1)  # the edge was moved
    assert found.lr > 1e-3


def test_a_task_is_the_proxy_of_a_config_without_one() -> None:
    """Also in the batches of its loader, which are known once the data are read."""
    task = Loaded()
    proxy = module.with_proxy(Config(), task, 0).proxy
    assert (proxy["steps"], proxy["batch_size"], proxy["examples"]) == (12, 4, 48)
    assert task.full().batch_size == 4


@pytest.mark.parametrize(
    ("task", "how", "message"),
    [
        (Wide(), {"steps": 12}, "this is the task's own scale"),
        (Toy(), {"scale": 2.0}, r"its model has no scale; write `def model\(self, scale=1.0\)`"),
    ],
)
def test_targets_that_are_none(task: Toy, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transfer(task, Config(), **how)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_task_has_wider_models(name: str) -> None:
    task = shipped()[name]()
    small, wide = (sum(p.numel() for p in task.model(scale).parameters()) for scale in (1.0, 2.0))
    assert small == sum(p.numel() for p in task.model().parameters())
    assert wide > 1.8 * small


def test_the_command(autoranger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARES", (0.0, 0.5))
    root = Path(__file__).parents[1]
    code = f"import sys\nsys.path.insert(0, {str(root)!r})\nfrom tests.test_transfer import Wide\n"
    (tmp_path / "mine.py").write_text(code + "class Mine(Wide):\n    pass\n")
    Config(lr=0.02).save(tmp_path / "tuned.toml")
    words = ("transfer", str(tmp_path / "tuned.toml"), "--task", f"{tmp_path / 'mine.py'}:Mine", "--steps", "24")
    status, shown, error = autoranger(*words, "--seeds", "2", "--out", str(tmp_path / "real.toml"))
    assert status == 0, error
    assert "Best rate for width × 1, batch size 8, 24 steps: lr" in shown
    assert load(tmp_path / "real.toml").lr != 0.02
    assert autoranger(*words, "--scale", "0.5", "--steps", "0")[0] == 2


def test_a_comparison_at_full_length_takes_the_rates_that_transfer_predicts(
    autoranger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARES", (0.0, 0.5))
    root = Path(__file__).parents[1]
    code = f"import sys\nsys.path.insert(0, {str(root)!r})\nfrom tests.test_transfer import Wide\n"
    (tmp_path / "mine.py").write_text(code + "class Mine(Wide):\n    name, steps, full_steps = 'mine', 6, 24\n")
    task = f"{tmp_path / 'mine.py'}:Mine"
    Config(lr=0.02).save(tmp_path / "tuned.toml")

    def told(*words: str) -> Any:
        status, shown, error = autoranger(*words, "--task", task, "--json")
        assert status == 0, error
        return json.loads(shown)

    compared = ("compare", str(tmp_path / "tuned.toml"), "adamw_cosine", "--seeds", "2", "--full")
    full = told(*compared)
    assert full["steps"] == 24
    assert full["rates_predicted"]
    for side in full["sides"]:
        assert side["config"]["lr"] == told("transfer", side["name"])["lr"]
    own = told(*compared, "--no-sweep")
    assert not own["rates_predicted"]
    assert {side["config"]["lr"] for side in own["sides"]} == {0.02, Config.preset("adamw_cosine").lr}
    swept = told(*compared, "--sweep")
    assert not swept["rates_predicted"]
    assert {side["config"]["lr"] for side in swept["sides"]} <= set(lr_grid(1e-6, 1e2))

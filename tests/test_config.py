"""The config as data: its file, its equality, and what it says about mistakes."""

from __future__ import annotations

import math
import os
import pickle
import re
import tomllib
from copy import deepcopy
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoranger import ComposedOptimizer, Config, ConfigError, DataError, load
from autoranger.components.core.component import Hyper, conflicts, registry
from autoranger.components.core.hyper import Setting
from autoranger.components.presets import PRESETS, RANGER21

FULL = Config.preset("ranger21")

positive = st.floats(0, 1e300)
below_one = st.floats(0, 1, exclude_max=True)


def values(hyper: Hyper) -> st.SearchStrategy[Setting]:
    """Any valid value of a hyperparameter."""
    if hyper.choices:
        return st.sampled_from(hyper.choices)
    if hyper.integer:
        return st.integers(int(hyper.minimum) + hyper.positive, int(min(hyper.maximum, 2**53)))
    top = None if math.isinf(hyper.maximum) else hyper.maximum
    return st.floats(hyper.minimum, top, exclude_min=hyper.positive, allow_nan=False, allow_infinity=False)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any config: a set of components that get along, every number anywhere in its domain."""
    chosen: list[str] = []
    for name in draw(st.lists(st.sampled_from(list(registry)), unique=True)):
        if not conflicts([*chosen, name]):
            chosen.append(name)
    components = {
        name: draw(st.fixed_dictionaries({}, optional={n: values(h) for n, h in registry[name].hypers.items()}))
        for name in chosen
    }
    return Config(draw(positive), (draw(below_one), draw(below_one)), draw(positive), draw(positive), components)


# Files


@given(configs())
@settings(max_examples=60, deadline=None)
def test_every_config_survives_its_file(config: Config) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        config.save(path)
        loaded = Config.load(path)
        assert loaded == config
        assert hash(loaded) == hash(config)
        assert loaded.to_dict() == config.to_dict()
        loaded.save(path.with_name("again.toml"))
        assert path.with_name("again.toml").read_bytes() == path.read_bytes()


@given(configs())
@settings(max_examples=30, deadline=None)
def test_every_config_survives_copies(config: Config) -> None:
    assert Config.from_dict(config.to_dict()) == config
    assert deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert replace(config, lr=config.lr) == config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_its_file(name: str, tmp_path: Path) -> None:
    Config.preset(name).save(tmp_path / "config.toml")
    assert Config.load(tmp_path / "config.toml") == Config.preset(name) == load(name)


def test_numbers_stand_in_the_file_as_they_were_given(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    components = {"lookahead": {"k": 6, "alpha": 0.3}, "positive_negative_momentum": {"beta0": 0.7}}
    Config(lr=0.3, betas=(0.1, 0.7), eps=1e-7, weight_decay=0.003, components=components).save(path)
    text = path.read_text()
    assert tomllib.loads(text) == {
        "lr": 0.3,
        "betas": [0.1, 0.7],
        "eps": 1e-7,
        "weight_decay": 0.003,
        "components": components,
    }
    assert not re.search(r"\d{6}", text), "digits that nobody wrote, such as 0.30000001192"


def test_a_file_by_hand_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("lr = 1\n[components]\nlookahead = {k = 6}\nnorm_loss = true\nlinear_warmup = false\n")
    assert Config.load(path) == Config(lr=1.0, components={"lookahead": {"k": 6}, "norm_loss": {}})
    path.write_text("")
    assert Config.load(path) == Config()


def test_evidence_is_kept_beside_the_config_and_ignored(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    evidence = {"task": "η ± 1 🙂", "seeds": [1, 2], "gain": {"mean": 0.1}}
    FULL.save(path, evidence=evidence)
    assert Config.load(path) == FULL
    assert tomllib.loads(path.read_text(encoding="utf-8"))["evidence"] == evidence
    FULL.save(path)
    assert "evidence" not in path.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = ", "is not a TOML file"),
        ("\x00", "is not a TOML file"),
        ("learning_rate = 0.1", "unknown config key 'learning_rate'"),
        ("weightdecay = 0.1", "unknown config key 'weightdecay'; did you mean 'weight_decay'"),
        ("[components.lookahaed]", "unknown component 'lookahaed'; did you mean 'lookahead'"),
        ("[components.lookahead]\nkk = 5", "unknown hyperparameter 'kk' of lookahead; did you mean 'k'"),
        ("[components.lookahead]\nk = 'five'", "lookahead.k is 'five', but must be a whole number from 1"),
        ("[components.lookahead]\nk = true", "lookahead.k is True"),
        (
            "[components.linear_warmup]\nfraction = 0.0",
            "linear_warmup.fraction is 0.0, but must be a number above 0 to 1",
        ),
        ("components = ['lookahead']", "components must be a table"),
        ("[components]\nlookahead = 5", "lookahead is 5, but must be"),
        ("lr = -1", "lr is -1, but must be a number from 0"),
        ("lr = nan", "lr is nan"),
        ("lr = inf", "lr is inf"),
        ("lr = true", "lr is True"),
        ("lr = '0.1'", "lr is '0.1'"),
        ("betas = [0.9]", "betas is"),
        ("betas = [0.9, 1.0]", r"betas\[1\] is 1.0, but must be a number from 0 below 1"),
    ],
)
def test_mistakes_in_a_file_are_named_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}.*{message}"):
        Config.load(path)


def test_a_file_in_another_encoding_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes("lr = 1 # Schrittgröße".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not a TOML file"):
        Config.load(path)


@pytest.mark.parametrize("text", ["lr = " + "9" * 400, "[components.lookahead]\nk = " + "9" * 400])
def test_whole_numbers_beyond_a_float_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Config.load(path)


@pytest.mark.parametrize("name", ["missing.toml", "folder.toml"])
def test_a_file_that_cannot_be_read_is_no_mistake_of_the_config(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(DataError, match=f"cannot read the config .*{name}"):
        Config.load(tmp_path / name)


@pytest.mark.parametrize("name", ["missing/config.toml", "file/config.toml", "folder.toml"])
def test_a_path_that_cannot_be_written_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="cannot write"):
        FULL.save(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "evidence", [{"why": None}, {"what": object()}, {"text": "\ud800"}], ids=["None", "object", "half a character"]
)
def test_what_toml_cannot_say_leaves_the_old_file(evidence: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    FULL.save(path)
    with pytest.raises((TypeError, ValueError, DataError)):
        Config().save(path, evidence=evidence)
    assert Config.load(path) == FULL
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    FULL.save(path)
    before = path.stat()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(DataError, match="No space left"):
            Config().save(path)
    assert Config.load(path) == FULL
    assert os.listdir(tmp_path) == [path.name]

    Config().save(path)
    assert Config.load(path) == Config()
    assert path.stat().st_ino != before.st_ino
    assert path.stat().st_mode == before.st_mode


def test_a_relative_path_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FULL.save("config.toml")
    assert load("config.toml") == FULL
    assert os.listdir(tmp_path) == ["config.toml"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    FULL.save(tmp_path / "config.toml")
    (tmp_path / "usual").touch()
    assert (tmp_path / "config.toml").stat().st_mode == (tmp_path / "usual").stat().st_mode


# load


def test_load_takes_a_file_or_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("adamw") == Config.preset("adamw")
    Config(lr=0.5).save("adamw")
    assert load("adamw") == Config(lr=0.5)
    with pytest.raises(ConfigError, match="unknown preset 'ranger12'; did you mean 'ranger21'"):
        load("ranger12")
    with pytest.raises(DataError, match=r"cannot read the config ranger12\.toml"):
        load("ranger12.toml")


def test_presets_are_overridden_by_fields() -> None:
    assert Config.preset("ranger21", lr=3e-4) == replace(FULL, lr=3e-4)
    assert Config.preset("adamw", components={"lookahead": {}}).components.keys() == {"lookahead"}
    with pytest.raises(ConfigError, match="unknown preset 'ranger12'; did you mean 'ranger21'"):
        Config.preset("ranger12")
    with pytest.raises(ConfigError, match="unknown config key 'wd'"):
        Config.preset("ranger21", wd=0.1)


# Data


def test_defaults_are_those_of_ranger21() -> None:
    assert FULL.to_dict() == {
        "lr": 1e-3,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": 1e-4,
        "components": {
            "adaptive_gradient_clipping": {"clip": 1e-2, "eps": 1e-3},
            "gradient_centralization": {},
            "positive_negative_momentum": {"beta0": 0.9},
            "norm_loss": {},
            "stable_weight_decay": {"scope": "tensor", "bound": 1.0},
            "linear_warmup": {"fraction": 0.22},
            "explore_exploit": {"fraction": 0.28},
            "lookahead": {"k": 5, "alpha": 0.5},
        },
    }
    assert Config().components == {}


def test_equal_configs_are_equal_however_they_were_written() -> None:
    one = Config(lr=1, components={"lookahead": True, "norm_loss": {}, "linear_warmup": False})
    other = Config(lr=1.0, components={"norm_loss": True, "lookahead": {"alpha": 0.5, "k": 5.0}})
    assert one == other
    assert hash(one) == hash(other)
    assert list(one.components) == list(other.components)
    assert len({one, other, Config(), FULL}) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.5},
        {"betas": (0.9, 0.99)},
        {"eps": 1e-7},
        {"weight_decay": 0.0},
        {"components": {}},
        {"components": {**FULL.components, "lookahead": {"k": 6}}},
    ],
    ids=str,
)
def test_different_configs_differ(change: dict[str, Any]) -> None:
    assert replace(FULL, **change) != FULL


def test_numbers_become_plain_python_numbers() -> None:
    config = Config(lr=1, betas=[0, 0.5], components={"lookahead": {"k": 6.0, "alpha": 1}})
    assert [type(x) for x in (config.lr, *config.betas, config.eps, config.weight_decay)] == [float] * 5
    assert {name: type(value) for name, value in config.components["lookahead"].items()} == {"k": int, "alpha": float}


def test_a_config_is_frozen() -> None:
    config = Config()
    with pytest.raises(FrozenInstanceError):
        config.lr = 0.5  # type: ignore[misc]


def test_a_config_shares_nothing_with_what_it_was_made_from() -> None:
    given_components: dict[str, dict[str, Setting]] = {"lookahead": {"k": 6}}
    config = Config(components=given_components)
    given_components["lookahead"]["k"] = 7
    given_components["norm_loss"] = {}
    config.to_dict()["components"]["lookahead"]["k"] = 8
    FULL.to_dict()["components"].clear()
    assert config.to_dict()["components"] == {"lookahead": {"k": 6, "alpha": 0.5}}
    assert list(FULL.components) == [name for name in registry if name in RANGER21]


def test_components_are_kept_in_the_order_in_which_they_act() -> None:
    assert list(Config(components=dict.fromkeys(reversed(RANGER21), True)).components) == list(FULL.components)


def test_a_config_knows_who_needs_total_steps() -> None:
    assert set(FULL.needs_total_steps) == {"linear_warmup", "explore_exploit"}
    assert Config().needs_total_steps == []


def test_a_config_builds_an_optimizer() -> None:
    import torch

    optimizer = FULL.build([torch.nn.Parameter(torch.ones(2, 3))], total_steps=10)
    assert isinstance(optimizer, ComposedOptimizer)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.config == FULL

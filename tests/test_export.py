"""Configs in other forms mean the same: what is written is read back, and code builds the same optimizer."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoranger import Config
from autoranger.components.core.component import registry
from autoranger.components.presets import PRESETS
from autoranger.export import to_json_text, to_python, to_toml

CONFIGS = {name: Config.preset(name) for name in PRESETS} | {
    name: Config(lr=3e-5, components={name: {}}) for name in registry
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_form_is_the_same_config(name: str) -> None:
    config = CONFIGS[name]
    text = to_toml(config.to_dict())
    assert Config.from_dict(tomllib.loads(text)) == config
    assert Config.from_dict(json.loads(to_json_text(config.to_dict()))) == config
    given: dict[str, Any] = {"model": torch.nn.Linear(2, 2), "epochs": 2, "loader": [1, 2, 3]}
    exec(to_python(config.to_dict()), given)
    assert given["config"] == config
    assert given["optimizer"].config == config
    assert max(map(len, text.splitlines())) <= 120
    values = [line for line in text.splitlines() if " = " in line]
    assert all(" # " in line for line in values), "each line is explained"
    assert all(registry[component].summary().split()[0] in text for component in config.components)


def test_a_component_that_is_not_known_here_is_written_without_comments() -> None:
    plain = {"lr": 0.1, "components": {"of nobody": {"x": 1, "y": 'a"b'}}}
    assert tomllib.loads(to_toml(plain)) == plain
    assert "'of nobody': {'x': 1" in to_python(plain)


def test_tables_are_written_too() -> None:
    layer = {"kind": "hidden", "fan_in": 4, "fan_out": 6, "gain": 0.5}
    proxy = {"steps": 12, "depth": 1, "batch_size": 8, "layers": {"0.weight": layer, "2.weight": layer}}
    config = Config(kinds={"vector": {"lr_factor": 2.0, "weight_decay": 0.0}}, proxy=proxy)
    assert Config.from_dict(tomllib.loads(to_toml(config.to_dict()))) == config
    given: dict[str, Any] = {"model": torch.nn.Linear(2, 2)}
    exec(to_python(config.to_dict()).partition("optimizer = ")[0], given)
    assert given["config"] == config


def test_the_command_writes_and_keeps(autoranger: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    assert autoranger("export", "ranger21", "--out", str(file)) == (0, "", "")
    assert Config.load(file) == Config.preset("ranger21")
    assert autoranger("export", str(file), "--format", "python")[1].startswith("from autoranger import Config")
    assert json.loads(autoranger("export", str(file), "--format", "json")[1]) == Config.preset("ranger21").to_dict()
    assert autoranger("export", "sgd", "--out", str(file))[0] == 0
    assert Config.load(f"{file}.bak") == Config.preset("ranger21")
    (tmp_path / "x.py").write_text("mine")
    assert autoranger("export", "sgd", "--out", str(tmp_path / "x.py"))[0] == 2, "not a config"
    assert (tmp_path / "x.py").read_text() == "mine"

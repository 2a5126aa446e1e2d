"""What torch's checkpoint tools make of an optimizer's state, in one process: whole, flattened, saved and exported."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from autoranger import Config

state_dicts = pytest.importorskip("torch.distributed.checkpoint.state_dict")
checkpoint = pytest.importorskip("torch.distributed.checkpoint")
pytestmark = pytest.mark.filterwarnings("ignore")  # of one process without a group, and of what torch itself still uses

WHOLE = {"full_state_dict": True}, {"flatten_optimizer_state_dict": True}


def made(config: Config, seed: int) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    return net, config.build(net.parameters(), 50, compile=False)


def train(net: nn.Module, optimizer: Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(7):
        optimizer.zero_grad()
        net(torch.randn(5, 4, generator=generator)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("options", WHOLE, ids=lambda options: next(iter(options)))
@pytest.mark.parametrize("name", ["ranger21", "adamw", "ranger", "adams"])
def test_a_state_that_torch_flattens_goes_on_where_it_was(name: str, options: dict[str, bool], tmp_path: Path) -> None:
    config, options = Config.preset(name, lr=0.01), state_dicts.StateDictOptions(**options)
    net, optimizer = made(config, 0)
    train(net, optimizer, 1)

    def parts(net: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        found = state_dicts.get_state_dict(net, optimizer, options=options)
        return dict(zip(("model", "optimizer"), found, strict=True))

    def resumed(state: dict[str, Any], seed: int) -> tuple[nn.Module, Optimizer]:
        other = made(config, seed)
        state_dicts.set_state_dict(
            *other, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=options
        )
        return other

    saved = parts(net, optimizer)
    checkpoint.save(saved, checkpoint_id=tmp_path / "shards")
    loaded = parts(*made(config, 2))
    checkpoint.load(loaded, checkpoint_id=tmp_path / "shards")
    exporting = pytest.importorskip("torch.distributed.checkpoint.format_utils")
    exporting.dcp_to_torch_save(tmp_path / "shards", tmp_path / "one.pt")
    exported = torch.load(tmp_path / "one.pt", weights_only=False)
    trainings = [resumed(copy.deepcopy(saved), 3), resumed(loaded, 4), resumed(exported, 5)]
    train(net, optimizer, 6)
    for other in trainings:
        train(*other, 6)
        assert all(map(torch.equal, net.parameters(), other[0].parameters()))
        assert other[1].param_groups[0]["step"] == 14


def test_state_in_which_a_component_without_hyperparameters_is_an_empty_dict_is_read() -> None:
    config = Config.preset("ranger21", lr=0.01)
    net, optimizer = made(config, 0)
    train(net, optimizer, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        group["components"] = {name: {} if on is True else on for name, on in group["components"].items()}
        assert {} in group["components"].values()
    other = made(config, 1)[1]
    other.load_state_dict(saved)
    assert other.param_groups[0]["components"] == optimizer.param_groups[0]["components"]
    optimizer.param_groups[0]["components"] = saved["param_groups"][0]["components"]
    train(net, optimizer, 2)  # a group that was made by hand may say it so, too

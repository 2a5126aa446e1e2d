"""Schedulers beside the schedules among the components: who is told that both act, and who is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from autoranger import ComposedOptimizer, Config, ConfigError, OwnSchedule

STEPS = 12
CLASH = "the factors multiply"

SILENT: dict[str, Callable[[Any], Any]] = {
    "none": lambda optimizer: None,
    "its own": OwnSchedule,
    "constant": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=1),
}
TOLD: dict[str, Callable[[Any], Any]] = {
    "linear": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS),
    "warm-up": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: step / STEPS),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
}


def told(optimizer: ComposedOptimizer, scheduler: Any) -> list[warnings.WarningMessage]:
    """Warnings of a clash in a training."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(STEPS):
            optimizer.step()
            if scheduler is not None:
                scheduler.step(*[1.0] * isinstance(scheduler, lr_scheduler.ReduceLROnPlateau))
    return [warning for warning in caught if CLASH in str(warning.message)]


def parameter() -> nn.Parameter:
    p = nn.Parameter(torch.ones(3, 2))
    p.grad = torch.ones(3, 2)
    return p


def built(**numbers: Any) -> ComposedOptimizer:
    return Config.preset("ranger21", **numbers).build([parameter()], STEPS, compile=False)


@pytest.mark.parametrize("scheduler", SILENT.values(), ids=SILENT)
def test_who_does_not_schedule_twice_is_told_nothing(scheduler: Callable[[Any], Any]) -> None:
    optimizer = built()
    assert not told(optimizer, scheduler(optimizer))


@pytest.mark.parametrize("scheduler", TOLD.values(), ids=TOLD)
def test_a_scheduler_on_top_of_schedules_is_said_once_where_the_step_is_called(scheduler: Callable[[Any], Any]) -> None:
    optimizer = built()
    (warning,) = told(optimizer, scheduler(optimizer))
    assert "on top of explore_exploit and linear_warmup" in str(warning.message)
    assert warning.filename == __file__


def test_a_scheduler_beside_components_that_are_no_schedules_is_told_nothing() -> None:
    optimizer = Config.preset("ranger").build([parameter()], compile=False)
    assert not told(optimizer, TOLD["linear"](optimizer))


def test_a_rate_changed_by_hand_is_told_nothing() -> None:
    optimizer = built()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.5
    assert not told(optimizer, None)


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
def test_the_own_schedule_tells_the_rate_in_effect_and_changes_nothing(lr: float | torch.Tensor) -> None:
    alone, beside = (
        ComposedOptimizer([parameter()], Config.preset("ranger21"), total_steps=STEPS, lr=lr, compile=False)
        for _ in range(2)
    )
    schedule, rates = OwnSchedule(beside), []
    for step in range(STEPS):
        alone.step()
        beside.step()
        rates += schedule.get_last_lr()
        schedule.step()
        assert schedule.get_last_lr() == alone.get_last_lr()
        if step == STEPS // 2:
            again = OwnSchedule(beside)
            again.load_state_dict(schedule.state_dict())
            schedule = again
    assert torch.equal(alone.param_groups[0]["params"][0], beside.param_groups[0]["params"][0])
    assert float(beside.param_groups[0]["lr"]) == pytest.approx(0.1)
    assert max(rates) == pytest.approx(0.1)
    assert rates[0] < 0.1 > rates[-1]


def test_a_length_may_come_with_the_schedule() -> None:
    late, early = built(), Config.preset("ranger21").build([parameter()], 1, compile=False)
    OwnSchedule(early, total_steps=STEPS)
    for _ in range(STEPS):
        late.step()
        early.step()
    assert torch.equal(late.param_groups[0]["params"][0], early.param_groups[0]["params"][0])


def test_an_optimizer_without_a_schedule_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match="SGD has no schedule of its own"):
        OwnSchedule(torch.optim.SGD([parameter()], 0.1))


def test_a_wrong_length_is_named_at_once_and_not_taken() -> None:
    optimizer = Config(components={"cosine_annealing": {}}).build([parameter()], total_steps=STEPS)
    with pytest.raises(ConfigError, match="total_steps is 0"):
        OwnSchedule(optimizer, total_steps=0)
    assert optimizer.param_groups[0]["total_steps"] == STEPS

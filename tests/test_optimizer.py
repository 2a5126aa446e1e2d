"""The optimizer as users of `torch.optim` expect it."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from autoranger import ComposedOptimizer, Config, ConfigError, Ranger21
from autoranger.components.optimizer import stacking
from autoranger.components.presets import RANGER21
from tests.conftest import PROBLEM, SMALL, advance, arrays, assert_close, differ, feed
from tests.references import reference

OFF = dict.fromkeys(RANGER21, False)
NUMBERS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}
FULL = Config(**NUMBERS, components=dict.fromkeys(RANGER21, True))
ADAMW = Config(**NUMBERS)

Scheduler = Callable[[Optimizer], LRScheduler]
SCHEDULERS: dict[str, Scheduler] = {
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda t: 1 / (1 + t)),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=8),
    "one cycle": lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=40),  # cycles beta1 as well
}


def ranger21(params: Any, total_steps: int = SMALL.total_steps, **components: Any) -> Ranger21:
    return Ranger21(params, **NUMBERS, total_steps=total_steps, **components)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 4, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def loss_of(net: nn.Module, seed: int) -> Tensor:
    inputs, targets = batch(seed)
    return nn.functional.cross_entropy(net(inputs), targets)


# Numbers


@pytest.mark.parametrize("layout", [0, stacking.STACKED_BELOW, 1 << 30], ids=["alone", "default", "stacked"])
@pytest.mark.parametrize("components", [{}, dict.fromkeys(RANGER21, True)], ids=["none", "all eight"])
def test_the_layout_of_the_parameters_makes_no_difference(
    layout: int, components: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacking, "STACKED_BELOW", layout)
    config = Config(**NUMBERS, components=components)
    params = PROBLEM.leaves()
    advance(config.build(params, total_steps=PROBLEM.total_steps), params, PROBLEM.grads)
    assert_close(arrays(params), reference(config)(config, PROBLEM.params, PROBLEM.grads, PROBLEM.total_steps))


def test_ranger21_is_its_preset() -> None:
    assert Ranger21(SMALL.leaves(), total_steps=10).config == Config.preset("ranger21")
    assert ranger21(SMALL.leaves()).config == FULL
    assert Ranger21(SMALL.leaves(), **NUMBERS, **OFF).config == ADAMW


def test_switches_and_hyperparameters_are_keywords() -> None:
    optimizer = ranger21(SMALL.leaves(), lookahead=False, positive_negative_momentum={"beta0": 0.5})
    assert "lookahead" not in optimizer.config.components
    assert optimizer.config.components["positive_negative_momentum"] == {"beta0": 0.5}


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers_are_honoured(scheduler: Scheduler) -> None:
    ours, theirs = SMALL.leaves(), SMALL.leaves()
    pairs = [(ADAMW.build(ours), ours), (torch.optim.AdamW(theirs, **NUMBERS), theirs)]
    for optimizer, params in pairs:
        schedule = scheduler(optimizer)
        for grads in SMALL.grads:
            feed(params, grads)
            optimizer.step()
            assert optimizer.param_groups[0]["lr"] == schedule.get_last_lr()[0]
            schedule.step()
    assert_close(arrays(ours), arrays(theirs))


def test_numbers_changed_by_hand_are_honoured() -> None:
    ours, theirs = SMALL.leaves(), SMALL.leaves()
    for optimizer, params in [(ADAMW.build(ours), ours), (torch.optim.AdamW(theirs, **NUMBERS), theirs)]:
        group = optimizer.param_groups[0]
        for t, grads in enumerate(SMALL.grads):
            advance(optimizer, params, [grads])
            group["lr"] = 0.01 * (t + 1)
            group["weight_decay"] = 0.1 / (t + 1)
            group["betas"] = (0.5 + 0.02 * t, 0.99)
            group["eps"] = 10.0 ** -(t + 1)
    # torch corrects the bias by the powers of the latest betas as well.
    assert_close(arrays(ours), arrays(theirs))


def test_a_tensor_lr_is_honoured_when_changed_in_place() -> None:
    by_tensor, by_float = SMALL.leaves(), SMALL.leaves()
    optimizer, other = FULL.build(by_tensor, SMALL.total_steps), FULL.build(by_float, SMALL.total_steps)
    lr = optimizer.param_groups[0]["lr"] = torch.tensor(NUMBERS["lr"], dtype=torch.float64)
    for grads in SMALL.grads:
        advance(optimizer, by_tensor, [grads])
        advance(other, by_float, [grads])
        lr.mul_(0.5)
        other.param_groups[0]["lr"] *= 0.5
    assert not differ(arrays(by_tensor), arrays(by_float))


def test_the_lr_is_visible_and_its_product_with_the_schedules_too() -> None:
    params = SMALL.leaves()
    groups = [{"params": params[:3]}, {"params": params[3:], "lr": 1.0}]
    optimizer = Ranger21(groups, lr=0.5, betas=(0.9, 0.99), total_steps=20)
    for t, grads in enumerate([*SMALL.grads, *SMALL.grads][:20], start=1):
        advance(optimizer, params, [grads])
        rate = min(1, max(0.01 * t / 2, t / (0.22 * 20)), (20 - t) / (0.28 * 20))
        assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1.0]
        assert optimizer.get_last_lr() == pytest.approx([0.5 * rate, rate])
    optimizer.param_groups[0]["total_steps"] = 40
    advance(optimizer, params, SMALL.grads[:1])
    assert optimizer.get_last_lr() == pytest.approx([0.5, 0])


def test_asking_for_the_lr_changes_nothing() -> None:
    results = []
    for ask in (False, True):
        params = SMALL.leaves()
        optimizer = ranger21(params)
        if ask:
            optimizer.get_last_lr()
        for p in params:
            p.data.add_(1)  # such as loading a checkpoint into the model
        advance(optimizer, params, SMALL.grads)
        results.append(arrays(params))
    assert not differ(*results)


@pytest.mark.filterwarnings("ignore:the optimizer was built for")
def test_schedules_end_at_zero_and_stay_there() -> None:
    (p,) = SMALL.part("matrix").leaves()
    optimizer = ranger21([p], total_steps=5, lookahead=False)
    for t in range(8):
        before = p.detach().clone()
        p.grad = torch.randn_like(p)
        optimizer.step()
        assert torch.equal(p, before) == (t >= 4)


def test_groups_have_their_own_numbers() -> None:
    ours, theirs = SMALL.leaves(), SMALL.leaves()

    def groups(params: list[nn.Parameter]) -> list[dict[str, Any]]:
        return [
            {"params": params[:2]},
            {"params": params[2:7], "lr": 0.1, "weight_decay": 0.0},
            {"params": params[7:], "betas": (0.8, 0.9), "eps": 1e-3},
        ]

    advance(ADAMW.build(groups(ours)), ours, SMALL.grads)
    advance(torch.optim.AdamW(groups(theirs), **NUMBERS), theirs, SMALL.grads)
    assert_close(arrays(ours), arrays(theirs))


def test_a_group_may_have_its_own_total_steps() -> None:
    short, long = SMALL.part("matrix"), SMALL.part("vector")
    together, alone = [*short.leaves(), *long.leaves()], [*short.leaves(), *long.leaves()]
    groups = [{"params": together[:1]}, {"params": together[1:], "total_steps": 40}]
    grads = [[*one, *other] for one, other in zip(short.grads, long.grads, strict=True)]
    advance(ranger21(groups, total_steps=20), together, grads)
    advance(ranger21(alone[:1], total_steps=20), alone[:1], short.grads)
    advance(ranger21(alone[1:], total_steps=40), alone[1:], long.grads)
    assert_close(arrays(together), arrays(alone), 1e-12)


@pytest.mark.parametrize("only", [True, False], ids=["only one", "one of two"])
def test_a_group_may_be_empty(only: bool) -> None:
    params, alone = SMALL.leaves(), SMALL.leaves()
    advance(ranger21([{"params": []}] + [{"params": params}] * (not only)), params, SMALL.grads)
    if not only:
        advance(ranger21(alone), alone, SMALL.grads)
    assert not differ(arrays(params), arrays(alone))


def test_parameters_without_numbers_or_gradients_are_no_problem() -> None:
    empty, frozen, p = (
        nn.Parameter(torch.empty(0, 3)),
        nn.Parameter(torch.ones(2), requires_grad=False),
        model()[0].weight,
    )
    optimizer = ranger21([empty, frozen, p])
    optimizer.step()
    empty.grad, p.grad = torch.empty(0, 3), torch.ones_like(p)
    optimizer.step()
    assert torch.equal(frozen, torch.ones(2))
    assert optimizer.state_dict()["param_groups"][0]["step"] == 2


def test_parameters_are_taken_in_any_form() -> None:
    results = []
    for form in (lambda m: m.parameters(), lambda m: list(m.parameters()), lambda m: m.named_parameters()):
        net = model()
        optimizer = ranger21(form(net))
        for seed in range(3):
            optimizer.zero_grad()
            loss_of(net, seed).backward()
            optimizer.step()
        results.append(arrays(list(net.parameters())))
    assert not differ(results[0], results[1])
    assert not differ(results[0], results[2])


def test_tied_parameters_are_one() -> None:
    def tied() -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
        net[1].weight = net[0].weight
        return net

    ours, theirs = tied(), tied()
    optimizers = [(ADAMW.build(ours.parameters()), ours), (torch.optim.AdamW(theirs.parameters(), **NUMBERS), theirs)]
    for optimizer, net in optimizers:
        for t in range(10):
            optimizer.zero_grad()
            net(torch.arange(5)).square().mul(t + 1).sum().backward()
            optimizer.step()
    assert_close(arrays(list(ours.parameters())), arrays(list(theirs.parameters())), 1e-5)
    assert ours[0].weight is ours[1].weight


# Memory formats and dtypes


def strange(x: Tensor) -> Tensor:
    """The same numbers, laid out in memory in another way."""
    if x.dim() == 4:
        return x.to(memory_format=torch.channels_last)
    if x.dim() == 5:
        return x.to(memory_format=torch.channels_last_3d)
    if x.dim() == 1:
        return torch.stack([x, x], dim=1)[:, 0]
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.dim() else x.clone()


STRANGE_SHAPES = [
    (4, 3, 3, 3),
    (4, 1, 3, 3),
    (1, 3, 2, 2),
    (4, 3, 1, 1),
    (2, 3, 2, 2, 2),
    (2, 3, 4),
    (5, 7),
    (1, 4),
    (7,),
]


@pytest.mark.parametrize("count", [1, 3], ids=["alone", "stacked"])
@pytest.mark.parametrize("what", ["parameters", "gradients", "both"])
def test_memory_format_makes_no_difference(count: int, what: str) -> None:
    results = []
    for change in (False, True):
        generator = torch.Generator().manual_seed(0)
        values = [torch.randn(shape, generator=generator) for shape in STRANGE_SHAPES for _ in range(count)]
        params = [nn.Parameter(strange(v) if change and what != "gradients" else v) for v in values]
        strides = [p.stride() for p in params]
        optimizer = ranger21(params)
        for _ in range(7):
            for p in params:
                grad = torch.randn(p.shape, generator=generator)
                p.grad = strange(grad) if change and what != "parameters" else grad
            optimizer.step()
        assert [p.stride() for p in params] == strides
        results.append([p.detach().numpy().copy() for p in params])
    assert_close(*results, tolerance=1e-6)


def test_half_precision_follows_float32_from_afar() -> None:
    exact, half = SMALL.leaves(torch.float32), SMALL.leaves(torch.bfloat16)
    for params in (exact, half):
        optimizer = ranger21(params)
        advance(optimizer, params, SMALL.grads)
    assert_close(arrays(half), arrays(exact), 0.05)


def test_dtypes_may_be_mixed() -> None:
    problem = SMALL.part("matrix", "outliers", "vector", "another vector")
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float32]
    mixed = [nn.Parameter(p.to(dtype)) for p, dtype in zip(problem.leaves(), dtypes, strict=True)]
    advance(ranger21(mixed), mixed, problem.grads)
    exact = problem.leaves()
    advance(ranger21(exact), exact, problem.grads)
    assert [p.dtype for p in mixed] == dtypes
    for p, q, tolerance in zip(arrays(mixed), arrays(exact), (1e-12, 1e-5, 0.05, 1e-5), strict=True):
        assert_close([p], [q], tolerance)


# Training loops


def test_a_closure_is_called_once_with_gradients_enabled() -> None:
    net, twin = model(), model()
    optimizer, other = ranger21(net.parameters()), ranger21(twin.parameters())
    calls = []

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(net, 0)
        loss.backward()
        calls.append(torch.is_grad_enabled())
        return loss.item()

    returned = optimizer.step(closure)
    loss = loss_of(twin, 0)
    loss.backward()
    assert other.step() is None
    assert returned == loss.item()
    assert calls == [True]
    assert not differ(arrays(list(net.parameters())), arrays(list(twin.parameters())))


def test_accumulated_gradients_are_one_step() -> None:
    net, twin = model(), model()
    optimizer, other = ranger21(net.parameters()), ranger21(twin.parameters())
    for t in range(6):
        optimizer.zero_grad()
        other.zero_grad()
        loss_of(net, 2 * t).backward()
        loss_of(net, 2 * t + 1).backward()
        (loss_of(twin, 2 * t) + loss_of(twin, 2 * t + 1)).backward()
        optimizer.step()
        other.step()
    assert_close(arrays(list(net.parameters())), arrays(list(twin.parameters())), 1e-5)
    assert optimizer.state_dict()["param_groups"][0]["step"] == 6


def test_a_grad_scaler_changes_nothing_and_skips_overflow() -> None:
    net, twin = model(), model()
    optimizer, other = ranger21(net.parameters()), ranger21(twin.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for t in range(6):
        optimizer.zero_grad()
        scaler.scale(loss_of(net, t)).backward()
        if t == 3:
            net[0].weight.grad[0] = torch.inf
        else:
            other.zero_grad()
            loss_of(twin, t).backward()
            other.step()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 512
    assert not differ(arrays(list(net.parameters())), arrays(list(twin.parameters())))
    assert optimizer.state_dict()["param_groups"][0]["step"] == 5


def test_a_compiled_training_step_may_contain_the_optimizer() -> None:
    """It steps aside: forward and backward are compiled once, and the step is what it is without."""
    results: list[list[Any]] = []
    for compiled in (False, True):
        torch._dynamo.reset()
        counters.clear()
        compilations = CompileCounterWithBackend("aot_eager")
        net = model()
        optimizer = ranger21(net.parameters())
        schedule = CosineAnnealingLR(optimizer, T_max=8)

        def train(inputs: Tensor, targets: Tensor, net: nn.Module = net, optimizer: Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
            return loss

        step = torch.compile(train, backend=compilations) if compiled else train
        for t in range(8):
            with torch._dynamo.config.patch(error_on_recompile=t > 1):  # the first step has no gradients to set back
                step(*batch(t))
            optimizer.param_groups[0]["weight_decay"] *= 0.9
            schedule.step()
        results.append(arrays(list(net.parameters())))
        assert compilations.frame_count <= 2 * compiled
        breaks = sum(count for reason, count in counters["graph_break"].items() if "ComposedOptimizer" in reason)
        assert breaks <= 2 * compiled, "one in each compilation of the training step"
    assert not differ(*results)


def test_tensors_of_a_special_kind_are_not_stacked() -> None:
    class Special(nn.Parameter):
        pass

    params = [nn.Parameter(torch.ones(2)), Special(torch.ones(2)), nn.Parameter(torch.ones(2)), Special(torch.ones(2))]
    assert [len(members) for members in stacking.stackable(params, {})] == [2, 1, 1]


@pytest.mark.parametrize("build", [ranger21, lambda params: ADAMW.build(params)], ids=["Ranger21", "ComposedOptimizer"])
def test_hooks_run_once_a_step(build: Callable[[Any], Optimizer]) -> None:
    (p,) = SMALL.part("matrix").leaves()
    optimizer = build([p])
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    handle = optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    p.grad = torch.ones_like(p)
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert calls == ["before", "after", "before"]


def test_nothing_is_printed_and_nothing_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = SMALL.leaves()
        optimizer = ranger21(params)
        advance(optimizer, params, SMALL.grads)
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.get_last_lr()
    assert capsys.readouterr() == ("", "")
    assert repr(optimizer).startswith("Ranger21 (")


# State


Resume = Callable[[list[nn.Parameter], ComposedOptimizer], tuple[list[nn.Parameter], ComposedOptimizer]]


def through_a_file(params: list[nn.Parameter], optimizer: ComposedOptimizer) -> Any:
    file = io.BytesIO()
    torch.save({"params": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = [nn.Parameter(p) for p in saved["params"]]
    length = optimizer.param_groups[0]["total_steps"]
    other = Config(lr=0.5, components=optimizer.config.components).build(resumed, total_steps=length)
    other.load_state_dict(saved["optimizer"])
    return resumed, other


def through_deepcopy(params: list[nn.Parameter], optimizer: ComposedOptimizer) -> Any:
    return copy.deepcopy((params, optimizer))


def through_pickle(params: list[nn.Parameter], optimizer: ComposedOptimizer) -> Any:
    return pickle.loads(pickle.dumps((params, optimizer)))


def into_a_used_optimizer(params: list[nn.Parameter], optimizer: ComposedOptimizer) -> Any:
    resumed = [nn.Parameter(p.detach().clone()) for p in params]
    other = optimizer.config.build(resumed, total_steps=optimizer.param_groups[0]["total_steps"])
    for p in resumed:
        p.grad = torch.ones_like(p)
    other.step()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, value in zip(resumed, params, strict=True):
        p.data.copy_(value)
    return resumed, other


@pytest.mark.parametrize("resume", [through_a_file, through_deepcopy, through_pickle, into_a_used_optimizer])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_every_step_can_be_resumed_bit_for_bit(resume: Resume, dtype: torch.dtype) -> None:
    problem = PROBLEM.without("another vector", "single column", "matrix", "dead").first(12)
    params = problem.leaves(dtype)
    optimizer = ranger21(params, stable_weight_decay={"scope": "global"})
    for grads in problem.grads:
        resumed, other = resume(params, optimizer)
        before = arrays(params)
        assert not differ(arrays(resumed), before)
        advance(other, resumed, [grads])
        assert not differ(arrays(params), before)
        advance(optimizer, params, [grads])
        assert not differ(arrays(resumed), arrays(params))
        params, optimizer = resumed, other


def test_a_scheduler_is_resumed_with_the_optimizer() -> None:
    def start() -> tuple[list[nn.Parameter], Ranger21, LRScheduler]:
        params = SMALL.leaves()
        optimizer = ranger21(params)
        return params, optimizer, SCHEDULERS["one cycle"](optimizer)

    params, optimizer, scheduler = start()
    resumed, other, other_scheduler = start()
    for t, grads in enumerate(SMALL.grads):
        if t == 7:
            for p, value in zip(resumed, params, strict=True):
                p.data.copy_(value)
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            other_scheduler.load_state_dict(scheduler.state_dict())
        for each, each_params, schedule in [(optimizer, params, scheduler), (other, resumed, other_scheduler)]:
            if each is optimizer or t >= 7:
                advance(each, each_params, [grads])
                schedule.step()
    assert not differ(arrays(resumed), arrays(params))


def test_saving_does_not_disturb() -> None:
    params, twin = SMALL.leaves(), SMALL.leaves()
    optimizer, other = ranger21(params), ranger21(twin)
    for grads in SMALL.grads:
        advance(optimizer, params, [grads])
        optimizer.state_dict()
        optimizer.get_last_lr()
        advance(other, twin, [grads])
    assert not differ(arrays(params), arrays(twin))


def test_the_state_counts_the_updates_of_each_parameter() -> None:
    params = SMALL.leaves()
    optimizer = ranger21(params)
    advance(optimizer, params, SMALL.grads)
    updates = [sum(grads[i] is not None for grads in SMALL.grads) for i in range(len(params))]
    assert [int(optimizer.state.get(p, {}).get("step", 0)) for p in params] == updates
    saved = optimizer.state_dict()
    assert set(saved) == {"state", "param_groups"}
    assert saved["param_groups"][0]["step"] == SMALL.total_steps


def test_the_state_is_shaped_like_the_parameters_and_can_be_edited() -> None:
    params, twin = SMALL.leaves(), SMALL.leaves()
    optimizer, other = ADAMW.build(params), ADAMW.build(twin)
    advance(optimizer, params, SMALL.grads[:1])
    for p, start in zip(params, twin, strict=True):
        for name, value in optimizer.state[p].items():
            assert value.shape == (() if name == "step" else p.shape)
            value.zero_()
        p.data.copy_(start)
    advance(optimizer, params, SMALL.grads)
    advance(other, twin, SMALL.grads)
    assert not differ(arrays(params), arrays(twin))


@pytest.mark.parametrize("config", [ADAMW, Config(**NUMBERS, components={"lookahead": {}})], ids=["adamw", "lookahead"])
def test_a_group_added_on_the_way_starts_afresh_and_disturbs_nobody(config: Config) -> None:
    old, new = SMALL.part("conv", "matrix", "vector"), SMALL.part("another conv", "outliers", "another vector")
    params, added = old.leaves(), new.leaves()
    optimizer = config.build(params)
    advance(optimizer, params, old.grads[:5])
    optimizer.add_param_group({"params": added, "lr": 0.1})
    for grads, more in zip(old.grads[5:], new.grads[5:], strict=True):
        advance(optimizer, [*params, *added], [[*grads, *more]])

    alone, other = old.leaves(), new.leaves()
    advance(config.build(alone), alone, old.grads)
    advance(config.build([{"params": other, "lr": 0.1}]), other, new.grads[5:])
    assert_close(arrays(params), arrays(alone), 1e-12)
    assert_close(arrays(added), arrays(other), 1e-12)


def test_schedules_go_on_when_a_group_is_added() -> None:
    first, second = SMALL.part("matrix").leaves(), SMALL.part("vector").leaves()
    optimizer = ranger21(first, total_steps=10)
    advance(optimizer, first, [[np.ones((5, 7))]] * 9)
    optimizer.add_param_group({"params": second, "lr": 1.0})
    advance(optimizer, [*first, *second], [[np.ones((5, 7)), np.ones(7)]])
    assert optimizer.get_last_lr() == [0, 0]
    assert optimizer.state_dict()["param_groups"][1]["step"] == 10


# Errors


def one() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3))]


@pytest.mark.parametrize("params", [[], iter([])], ids=["list", "iterator"])
def test_no_parameters_are_an_error(params: Any) -> None:
    with pytest.raises(ConfigError, match="the parameter list is empty"):
        Ranger21(params, total_steps=10)


def test_a_lone_tensor_is_not_a_list_of_parameters() -> None:
    with pytest.raises((TypeError, ConfigError), match=r"iterable|list"):
        Ranger21(one()[0], total_steps=10)


@pytest.mark.parametrize(
    ("off", "named"),
    [
        ({}, "linear_warmup and explore_exploit|explore_exploit and linear_warmup"),
        ({"linear_warmup": False}, "but explore_exploit needs"),
        ({"explore_exploit": False}, "but linear_warmup needs"),
        ({"linear_warmup": False, "explore_exploit": False}, None),
    ],
    ids=["both", "explore_exploit", "linear_warmup", "none"],
)
def test_missing_total_steps_name_who_needs_them(off: dict[str, bool], named: str | None) -> None:
    if named is None:
        Ranger21(one(), **off)
        return
    with pytest.raises(ConfigError, match=named) as error:
        Ranger21(one(), **off)
    assert "total_steps=" in str(error.value)
    assert not any(
        name in str(error.value) for name in {*RANGER21, *off} - {"linear_warmup", "explore_exploit"} | off.keys()
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": -1}, "lr is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"eps": -1e-8}, "eps is -1e-08"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"betas": (1.0, 0.999)}, r"betas\[0\] is 1.0"),
        ({"betas": (0.9, -0.1)}, r"betas\[1\] is -0.1"),
        ({"betas": 0.9}, "betas is 0.9"),
        ({"betas": (0.9, 0.99, 0.999)}, "betas is "),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"total_steps": 2.5}, "total_steps is 2.5"),
        ({"total_steps": True}, "total_steps is True"),
        ({"lookahead": {"k": 0}}, "lookahead.k is 0"),
        ({"lookahead": {"k": 2.5}}, "lookahead.k is 2.5"),
        ({"lookahead": {"alpha": 1.5}}, "lookahead.alpha is 1.5"),
        ({"stable_weight_decay": {"scope": "row"}}, "stable_weight_decay.scope is 'row', .*'tensor' or 'global'"),
        ({"lookahead": 5}, "lookahead is 5"),
        ({"lookahed": False}, "unknown component 'lookahed'; did you mean 'lookahead'"),
        ({"lookahead": {"alhpa": 0.5}}, "unknown hyperparameter 'alhpa' of lookahead; did you mean 'alpha'"),
        ({"zzz": True}, "unknown component 'zzz'; known: .*lookahead"),
        ({"fused": True}, "fused is for torch's own optimizers.*leave it out"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_wrong_values_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ranger21(one(), **{"total_steps": 10} | wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"lr": -1}, {"betas": (2, 0)}, {"total_steps": None}, {"total_steps": -1}, {"components": {}}],
    ids=str,
)
def test_a_wrong_group_is_refused_and_forgotten(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ranger21([{"params": one()} | wrong])
    params = one()
    optimizer = ranger21(params)
    with pytest.raises(ConfigError):
        optimizer.add_param_group({"params": one()} | wrong)
    assert len(optimizer.param_groups) == 1
    advance(optimizer, params, [[np.ones((2, 3))]])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64], ids=str)
def test_parameters_that_are_not_real_are_refused(dtype: torch.dtype) -> None:
    p = torch.ones(2, 3, dtype=dtype)
    with pytest.raises(ConfigError, match=f"dtype {dtype}"):
        ranger21([p]).step()


def test_parameters_on_several_devices_are_refused() -> None:
    params = [*one(), nn.Parameter(torch.ones(2, device="meta"))]
    with pytest.raises(ConfigError, match=r"several devices \(cpu, meta\)"):
        ranger21(params).step()


def test_sparse_gradients_are_refused_before_anything_changes() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Embedding(6, 4, sparse=True))
    params = list(net.parameters())
    optimizer = ranger21(params)
    net[0](net[1](torch.arange(3))).sum().backward()
    before = arrays(params)
    with pytest.raises(ConfigError, match="sparse"):
        optimizer.step()
    assert not differ(arrays(params), before)
    assert optimizer.state_dict()["param_groups"][0]["step"] == 0


@pytest.mark.parametrize(
    "source",
    [
        lambda params: ADAMW.build(params),
        lambda params: ranger21(params, lookahead=False),
        lambda params: ranger21(params, lookahead={"k": 6}),
        lambda params: torch.optim.AdamW(params),
    ],
    ids=["no components", "one less", "other hyperparameter", "torch's AdamW"],
)
def test_state_of_other_components_is_refused(source: Callable[[list[nn.Parameter]], Optimizer]) -> None:
    params = one()
    saved = source(params).state_dict()
    optimizer = ranger21(one())
    with pytest.raises(ConfigError, match="other components"):
        optimizer.load_state_dict(saved)
    optimizer.step()


def test_state_from_before_a_hyperparameter_existed_is_read() -> None:
    saved = copy.deepcopy(ranger21(one()).state_dict())
    for group in saved["param_groups"]:
        del group["components"]["stable_weight_decay"]["bound"]
    ranger21(one()).load_state_dict(saved)
    for group in saved["param_groups"]:
        group["components"]["stable_weight_decay"]["bound"] = 0.5
    with pytest.raises(ConfigError, match="other components"):
        ranger21(one()).load_state_dict(saved)


def test_state_of_other_parameters_is_refused() -> None:
    saved = ranger21(one()).state_dict()
    with pytest.raises(ValueError, match="parameter group"):
        ranger21(one() + one()).load_state_dict(saved)


@pytest.mark.parametrize("compiled", [False, "auto"])
def test_a_training_beyond_its_end_is_told_so_once(compiled):
    def steps(optimizer: torch.optim.Optimizer, count: int) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(count):
                optimizer.step()
        return [str(w.message) for w in caught if "total_steps" in str(w.message)]

    def parameter() -> torch.nn.Parameter:
        p = torch.nn.Parameter(torch.ones(3, 2))
        p.grad = torch.ones(3, 2)
        return p

    optimizer = Ranger21([parameter()], total_steps=6, compile=compiled)
    assert steps(optimizer, 6) == []
    (told,) = steps(optimizer, 4)
    assert "built for total_steps=6" in told
    resumed = Ranger21([parameter()], total_steps=6, compile=compiled)
    resumed.load_state_dict(Ranger21([parameter()], total_steps=6).state_dict())
    assert steps(resumed, 6) == []
    assert len(steps(resumed, 1)) == 1
    warm_up_only = Ranger21([parameter()], total_steps=6, compile=compiled, explore_exploit=False)
    assert steps(warm_up_only, 9) == []
    assert steps(Ranger21([parameter()], compile=compiled, explore_exploit=False, linear_warmup=False), 9) == []

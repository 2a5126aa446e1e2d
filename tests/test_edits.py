"""What users do between steps: edits of groups, parameters, state and weights count from the next one on."""

from __future__ import annotations

import copy
import io
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from autoranger import Config, ConfigError, Ranger21
from autoranger.components.core.component import registry
from autoranger.components.kernel.recording import programs
from autoranger.components.optimizer.watch import Watch
from autoranger.components.presets import RANGER21
from tests.conftest import arrays, assert_close, differ

NUMBERS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}
FULL = Config(**NUMBERS, components=dict.fromkeys(RANGER21, True))
ADAMW = Config(**NUMBERS)
COPYING = {name: cls for name, cls in registry.items() if torch.clone in cls.state.values()}


def parameter(*shape: int, value: float = 0.5) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, value, dtype=torch.float64))


def train(optimizer: torch.optim.Optimizer, steps: int = 1, seed: int = 0) -> None:
    """Steps with gradients that depend on the number of the step, and on the parameter's shape only."""
    for t in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                generator = torch.Generator().manual_seed(1000 * seed + t)
                p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        optimizer.step()


# Any edit, in any order: as torch's AdamW takes it

MOMENTS = {"first_moment.mean": "exp_avg", "second_moment.variance": "exp_avg_sq"}


class Pair:
    """Our AdamW and torch's, with parameters of the same numbers, to which the same is done."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        params = [self.new() for _ in range(3)]
        self.optimizers = (
            ADAMW.build([ours for ours, _ in params]),
            torch.optim.AdamW([theirs for _, theirs in params], **NUMBERS),
        )

    def new(self) -> tuple[nn.Parameter, nn.Parameter]:
        shape = self.chance.choice([(3, 2), (3, 2), (4,), ()])
        value = torch.randn(shape, dtype=torch.float64)
        return nn.Parameter(value.clone()), nn.Parameter(value.clone())

    def place(self) -> tuple[int, int]:
        groups = self.optimizers[0].param_groups
        group = self.chance.choice([i for i, g in enumerate(groups) if g["params"]])
        return group, self.chance.randrange(len(groups[group]["params"]))

    def edit(self) -> str:
        """Does the same to both; says what."""
        edits = [self.replace, self.append, self.remove, self.move, self.group, self.forget, self.reset, self.load]
        edits += [self.set_moment, self.drop_group, self.raw_group, self.numbers, self.reorder, self.hand_over]
        edit = self.chance.choice(edits)
        edit()
        return edit.__name__

    def each(self) -> Any:
        return zip(self.optimizers, self.new(), strict=True)

    def replace(self) -> None:
        group, i = self.place()
        for optimizer, p in self.each():
            optimizer.param_groups[group]["params"][i] = p

    def append(self) -> None:
        group, _ = self.place()
        for optimizer, p in self.each():
            optimizer.param_groups[group]["params"].append(p)

    def remove(self) -> None:
        group, i = self.place()
        if sum(len(g["params"]) for g in self.optimizers[0].param_groups) > 2:
            for optimizer in self.optimizers:
                optimizer.param_groups[group]["params"].pop(i)

    def move(self) -> None:
        group, i = self.place()
        for optimizer in self.optimizers:
            p = optimizer.param_groups[group]["params"].pop(i)
            optimizer.param_groups[-1]["params"].append(p)

    def reorder(self) -> None:
        group, _ = self.place()
        for optimizer in self.optimizers:
            optimizer.param_groups[group]["params"].reverse()

    def group(self) -> None:
        for optimizer, p in self.each():
            optimizer.add_param_group({"params": [p], "lr": 0.03})

    def raw_group(self) -> None:
        for optimizer, p in self.each():
            optimizer.param_groups.append({**optimizer.param_groups[0], "params": [p], "weight_decay": 0.3})

    def drop_group(self) -> None:
        if len(self.optimizers[0].param_groups) > 1:
            i = self.chance.randrange(len(self.optimizers[0].param_groups))
            if any(g["params"] for j, g in enumerate(self.optimizers[0].param_groups) if j != i):
                for optimizer in self.optimizers:
                    optimizer.param_groups.pop(i)

    def forget(self) -> None:
        group, i = self.place()
        for optimizer in self.optimizers:
            optimizer.state.pop(optimizer.param_groups[group]["params"][i], None)

    def reset(self) -> None:
        for optimizer in self.optimizers:
            optimizer.state = defaultdict(dict)

    def hand_over(self) -> None:
        group, i = self.place()
        for optimizer in self.optimizers:
            old = optimizer.param_groups[group]["params"][i]
            new = optimizer.param_groups[group]["params"][i] = nn.Parameter(old.detach() * 2)
            if old in optimizer.state:
                optimizer.state[new] = optimizer.state.pop(old)

    def load(self) -> None:
        group, i = self.place()
        for optimizer in self.optimizers:
            optimizer.param_groups[group]["params"][i].data.fill_(2)

    def set_moment(self) -> None:
        group, i = self.place()
        name = self.chance.choice([*MOMENTS])
        for optimizer, key in zip(self.optimizers, (name, MOMENTS[name]), strict=True):
            p = optimizer.param_groups[group]["params"][i]
            if p in optimizer.state:
                optimizer.state[p][key] = torch.full_like(p, 0.25)

    def numbers(self) -> None:
        group, _ = self.place()
        value = self.chance.random()
        maximize = self.chance.random() < 0.5
        for optimizer in self.optimizers:
            optimizer.param_groups[group] |= {"lr": 0.1 * value, "betas": (value, 0.9), "maximize": maximize}

    def step(self) -> None:
        some = self.chance.randrange(1000)
        for optimizer in self.optimizers:
            for g, group in enumerate(optimizer.param_groups):
                for i, p in enumerate(group["params"]):
                    generator = torch.Generator().manual_seed(some + 100 * g + i)
                    missing = (some + g + i) % 4 == 0
                    p.grad = None if missing else torch.randn(p.shape, generator=generator, dtype=torch.float64)
            optimizer.step()

    def check(self) -> None:
        ours, theirs = ([p for g in o.param_groups for p in g["params"]] for o in self.optimizers)
        assert_close(arrays(ours), arrays(theirs), 1e-9)
        for p, q in zip(ours, theirs, strict=True):
            mine, other = (o.state.get(x, {}) for o, x in zip(self.optimizers, (p, q), strict=True))
            assert bool(mine) == bool(other)
            for name, theirs_name in (MOMENTS | {"step": "step"}).items() if mine else ():
                torch.testing.assert_close(mine[name].double(), other[theirs_name].double(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_edits_count_as_torchs_adamw_counts_them(way: None, seed: int) -> None:
    torch.manual_seed(seed)
    pair = Pair(seed)
    done = []
    for _ in range(25):
        pair.step()
        done.append(pair.edit())
        pair.step()
        try:
            pair.check()
        except AssertionError as error:
            raise AssertionError(f"after {done}: {error}") from None


# All components


def test_who_is_not_concerned_notices_nothing(way: None) -> None:
    """Of parameters that share a stack, one is replaced, one taken out, one put in; the state of one is dropped."""
    undisturbed, same = parameter(3, 2), parameter(3, 2)
    params = [parameter(3, 2, value=v) for v in (1.0, 2.0, 3.0)]
    optimizer = FULL.build([undisturbed, *params], total_steps=40)
    alone = FULL.build([same], total_steps=40)
    group = optimizer.param_groups[0]
    for edit in (
        lambda: group["params"].__setitem__(1, parameter(3, 2)),
        lambda: group["params"].pop(2),
        lambda: group["params"].append(parameter(3, 2)),
        lambda: optimizer.state.pop(group["params"][2]),
        lambda: optimizer.add_param_group({"params": [parameter(3, 2)]}),
        lambda: optimizer.param_groups.pop(),
        lambda: optimizer.state_dict(),
    ):
        train(optimizer, 3)
        train(alone, 3)
        edit()
        assert not differ(arrays([undisturbed]), arrays([same]))
        assert {n: x.tolist() for n, x in optimizer.state[undisturbed].items()} == {
            n: x.tolist() for n, x in alone.state[same].items()
        }


def test_a_parameter_that_comes_later_trains_as_in_an_optimizer_of_its_own(way: None) -> None:
    old, new, twin = parameter(3, 2), parameter(4), parameter(4)
    optimizer = FULL.build([old], total_steps=40)
    train(optimizer, 5)
    optimizer.param_groups[0]["params"] = [new]
    other = FULL.build([twin], total_steps=40)
    other.param_groups[0]["step"] = 5
    for each in (optimizer, other):
        train(each, 7)
    assert not differ(arrays([new]), arrays([twin]))
    assert optimizer.param_groups[0]["step"] == 12


@pytest.mark.parametrize("reset", ["clear", "replaced", "each", "emptied"])
def test_without_state_everything_begins_but_the_schedule(way: None, reset: str) -> None:
    p, twin = parameter(3, 2), parameter(3, 2)
    optimizer = FULL.build([p], total_steps=40)
    train(optimizer, 5)
    if reset == "clear":
        optimizer.state.clear()
    elif reset == "replaced":
        optimizer.state = defaultdict(dict)
    elif reset == "each":
        del optimizer.state[p]
    else:
        optimizer.state[p].clear()
    assert not any(optimizer.state_dict()["state"].values())
    twin.data.copy_(p.data)
    other = FULL.build([twin], total_steps=40)
    other.param_groups[0]["step"] = 5
    for each in (optimizer, other):
        train(each, 7)
    assert not differ(arrays([p]), arrays([twin]))


def test_the_schedule_is_set_back_by_hand(way: None) -> None:
    p, twin = parameter(3, 2), parameter(3, 2)
    optimizer = FULL.build([p], total_steps=10)
    train(optimizer, 6)
    optimizer.state.clear()
    optimizer.param_groups[0]["step"] = 0
    twin.data.copy_(p.data)
    for each in (optimizer, FULL.build([twin], total_steps=10)):
        train(each, 9)
    assert not differ(arrays([p]), arrays([twin]))
    assert optimizer.param_groups[0]["step"] == 9


def test_a_part_of_an_entry_may_begin_anew(way: None) -> None:
    p, twin = parameter(3, 2), parameter(3, 2)
    optimizer, other = (FULL.build([x], total_steps=40) for x in (p, twin))
    for each in (optimizer, other):
        train(each, 3)
    del optimizer.state[p]["lookahead.slow"]
    other.state[twin]["lookahead.slow"].copy_(twin.detach())
    for each in (optimizer, other):
        train(each, 4)
    assert not differ(arrays([p]), arrays([twin]))


@pytest.mark.parametrize("how", ["assigned", "by data"])
def test_state_may_be_moved_out_and_back(way: None, how: str) -> None:
    """As those do who free memory between steps; what is saved meanwhile is what was there."""
    params, twins = [parameter(3, 2), parameter(3, 2)], [parameter(3, 2), parameter(3, 2)]
    optimizer, other = (FULL.build(x, total_steps=40) for x in (params, twins))
    for t in range(6):
        for each in (optimizer, other):
            train(each, 1, seed=t)
        for entry in optimizer.state.values():
            for name, value in entry.items():
                if how == "assigned":
                    entry[name] = value.clone()
                else:
                    value.data = value.data.clone()
        for key, entry in optimizer.state_dict()["state"].items():
            for name, value in entry.items():
                assert torch.equal(value, other.state_dict()["state"][key][name])
    assert not differ(arrays(params), arrays(twins))


def test_what_does_not_train_has_no_state_until_it_has_a_gradient(way: None) -> None:
    backbone, head = parameter(3, 2), parameter(3, 2)
    backbone.requires_grad_(False)
    optimizer = FULL.build([backbone, head], total_steps=40)
    head.grad = torch.ones_like(head)
    for _ in range(3):
        optimizer.step()
    assert backbone not in optimizer.state
    assert [*optimizer.state_dict()["state"]] == [1]
    backbone.requires_grad_()
    train(optimizer, 2)
    assert int(optimizer.state[backbone]["step"]) == 2
    assert int(optimizer.state[head]["step"]) == 5


def test_the_count_in_the_groups_is_never_stale(way: None) -> None:
    optimizer = FULL.build([{"params": [parameter(2)]}, {"params": [parameter(3)]}], total_steps=40)
    for t in range(4):
        assert [group["step"] for group in optimizer.param_groups] == [t, t]
        train(optimizer)


def test_a_model_may_change_its_type(way: None) -> None:
    """State stays in single precision, and goes on."""
    net = nn.Linear(3, 2)
    optimizer = FULL.build(net.parameters(), total_steps=40)
    train(optimizer, 3)
    before = optimizer.state[net.weight]["second_moment.variance"].clone()
    net.bfloat16()
    net.zero_grad()
    train(optimizer, 1)
    assert net.weight.dtype == torch.bfloat16
    after = optimizer.state[net.weight]["second_moment.variance"]
    assert after.dtype == torch.float32
    assert (after / before > 0.98).all()


def test_what_users_keep_in_the_state_stays_there(way: None) -> None:
    p, old = parameter(3, 2), parameter(3, 2)
    optimizer = FULL.build([p, old], total_steps=40)
    train(optimizer)
    optimizer.state[p]["note"] = "mine"
    optimizer.param_groups[0]["params"].pop()
    train(optimizer, 2)
    saved = optimizer.state_dict()
    assert saved["state"][0]["note"] == "mine"
    assert [*saved["state"]] == [0], "of a parameter in no group nothing can be saved"
    optimizer.param_groups[0]["params"].append(old)
    train(optimizer)
    assert int(optimizer.state[old]["step"]) == 2, "but it goes on where it is put back"


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")
def test_a_parameter_that_is_there_twice_counts_once(way: None) -> None:
    """As after tying weights; each way to run a step had another meaning of it."""
    once, twice, appended = parameter(3, 2), parameter(3, 2), parameter(3, 2)
    optimizers = [FULL.build(params, total_steps=40) for params in ([once], [twice, twice], [appended])]
    optimizers[2].param_groups[0]["params"].append(appended)
    for optimizer in optimizers:
        train(optimizer)
    assert torch.equal(once, twice)
    assert torch.equal(once, appended)


def test_large_state_is_not_copied_when_another_parameter_begins(way: None) -> None:
    large, small = parameter(300, 300), parameter(3)
    optimizer = FULL.build([large, small], total_steps=40)
    large.grad = torch.ones_like(large)
    optimizer.step()
    before = {name: x.data_ptr() for name, x in optimizer.state[large].items()}
    train(optimizer)
    assert {name: x.data_ptr() for name, x in optimizer.state[large].items()} == before


def test_many_optimizers_of_the_same_components_record_once(way: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    original = programs.record
    monkeypatch.setattr(programs, "PROGRAMS", {})
    monkeypatch.setattr(programs, "record", lambda *args: calls.append(args) or original(*args))
    for size in range(1, 9):
        train(Config(lr=0.1 * size, components=FULL.components).build([parameter(size, 2)], total_steps=size))
    assert len(calls) <= 2, "at most once for each way to run it"


def test_optimizers_of_the_same_components_share_them_and_nothing_else(way: None) -> None:
    """What one of them does is what it does alone; what is made of no real numbers is not shared."""
    with FakeTensorMode():
        unreal = nn.Parameter(torch.ones(3, 2))
        unreal.grad = torch.ones_like(unreal)
        FULL.build([unreal], total_steps=40, compile=False).step()
    alone, first, second = parameter(3, 2), parameter(3, 2), parameter(3, 2)
    optimizers = [FULL.build([p], total_steps=40) for p in (alone, first, second)]
    optimizers[0].param_groups[0]["lr"] = optimizers[1].param_groups[0]["lr"] = 0.3
    for optimizer in optimizers[1:]:
        train(optimizer)
    train(optimizers[0])
    assert torch.equal(alone, first)
    assert not torch.equal(first, second)
    chains = [optimizer._bound.core.chains[0] for optimizer in optimizers if optimizer._bound]
    assert all(chain is chains[0] for chain in chains)


# Weights


def loaded(p: nn.Parameter, value: Tensor) -> None:
    holder = nn.Module()
    holder.p = p
    holder.load_state_dict({"p": value})


def copied(p: nn.Parameter, value: Tensor) -> None:
    with torch.no_grad():
        p.copy_(value)


def copied_behind_autograd(p: nn.Parameter, value: Tensor) -> None:
    p.data.copy_(value)


def exchanged(p: nn.Parameter, value: Tensor) -> None:
    p.data = value.clone()


def initialized(p: nn.Parameter, value: Tensor) -> None:
    nn.init.constant_(p, value.flatten()[0].item())


LOADS: tuple[Callable[[nn.Parameter, Tensor], None], ...] = (loaded, copied, copied_behind_autograd, exchanged)
LOADS += (initialized,)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("name", COPYING)
@pytest.mark.parametrize("steps", [1, 4, 5])
def test_weights_that_are_loaded_stay(
    way: None, name: str, load: Callable[[nn.Parameter, Tensor], None], steps: int
) -> None:
    """A component that keeps a copy of weights begins anew from them, and nothing pulls them back."""
    p, twin = parameter(3, 2), parameter(3, 2)
    optimizer, other = (Config(lr=1e-4, components={name: {}}).build([x]) for x in (p, twin))
    for each in (optimizer, other):
        train(each, steps)
    load(p, torch.full_like(p, 7.0))
    twin.data.fill_(7.0)
    for state, make in COPYING[name].state.items():
        other.state[twin][f"{name}.{state}"] = make(twin.detach())
    for each in (optimizer, other):
        train(each, 12)
    assert not differ(arrays([p]), arrays([twin]))
    assert (p > 6.9).all()


MEMORY: dict[str, Callable[[], Tensor]] = {
    "one number": lambda: torch.zeros(()),
    "strided": lambda: torch.zeros(8)[::2],
    "bfloat16": lambda: torch.zeros(4, dtype=torch.bfloat16),
    "unaligned": lambda: torch.frombuffer(bytearray(20), dtype=torch.float32, offset=2, count=4),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_whose_weights_are_replaced_is_seen_in_any_memory(kind: str) -> None:
    params = [nn.Parameter(torch.zeros(4)), nn.Parameter(MEMORY[kind]())]
    watch = Watch(params)
    assert watch.changed() == [], "there is nothing to compare with"
    watch.note()
    assert watch.changed() == []
    params[0].data = torch.ones(4)
    params[1].data.add_(1)
    assert watch.changed() == [0, 1]
    assert watch.changed() == [], "what is changed before every step is part of the training"


def test_a_parameter_without_memory_is_no_change() -> None:
    """Sharded training frees the memory of weights between steps."""
    params = [nn.Parameter(torch.zeros(4)) for _ in range(2)]
    watch = Watch(params)
    watch.changed()
    watch.note()
    params[1].untyped_storage().resize_(0)
    found = watch.changed()
    params[1].untyped_storage().resize_(16)  # without it the parameter could not be printed
    assert found == []


def test_a_look_at_averaged_weights_changes_nothing(way: None) -> None:
    """They are put in the place of the weights, and these back again."""
    p, twin = parameter(3, 2), parameter(3, 2)
    optimizer, other = (FULL.build([x], total_steps=40) for x in (p, twin))
    for t in range(8):
        for each in (optimizer, other):
            train(each, 1, seed=t)
        kept = p.detach().clone()
        copied(p, torch.ones_like(p))
        copied(p, kept)
    assert not differ(arrays([p]), arrays([twin]))


def test_weights_that_are_changed_after_every_step_are_part_of_the_training(way: None) -> None:
    """Clipped, say: Lookahead goes on to do what it is for."""
    p, slow = parameter(4, value=0.3), torch.full((4,), 0.3, dtype=torch.float64)
    optimizer = Config(lr=0.1, weight_decay=0.0, components={"sgd_momentum": {}, "lookahead": {"k": 3}}).build([p])
    optimizer.param_groups[0]["betas"] = (0.0, 0.9)
    theta = slow.clone()
    for t in range(12):
        p.grad = torch.full_like(p, (-1.0) ** t + 0.5)
        optimizer.step()
        theta -= 0.1 * p.grad
        if (t + 1) % 3 == 0:
            slow += 0.5 * (theta - slow)
            theta = slow.clone()
        if t > 0:
            theta *= 0.9
            with torch.no_grad():
                p.mul_(0.9)
        if t == 1:  # the first change counts as weights of somebody else's
            slow = theta.clone()
    assert_close(arrays([p]), arrays([theta]))


def test_weights_and_state_that_are_loaded_together_belong_together(way: None) -> None:
    p = parameter(3, 2)
    optimizer = FULL.build([p], total_steps=40)
    train(optimizer, 7)
    saved, weights = copy.deepcopy(optimizer.state_dict()), p.detach().clone()
    train(optimizer, 6, seed=1)
    expected = arrays([p])
    for first in ("weights", "state"):
        train(optimizer, 2)
        for what in ("weights", "state") if first == "weights" else ("state", "weights"):
            p.data.copy_(weights) if what == "weights" else optimizer.load_state_dict(copy.deepcopy(saved))
        train(optimizer, 6, seed=1)
        assert not differ(arrays([p]), expected)


# What is wrong is said


@pytest.mark.parametrize("value", [None, 0, -3, 2.5, "ten"])
def test_a_wrong_length_set_by_hand_is_an_error(way: None, value: object) -> None:
    p = parameter(3, 2)
    optimizer = FULL.build([p], total_steps=40)
    train(optimizer, 2)
    optimizer.param_groups[0]["total_steps"] = value
    before = arrays([p])
    with pytest.raises(ConfigError, match="total_steps"):
        train(optimizer)
    assert not differ(arrays([p]), before)
    optimizer.param_groups[0]["total_steps"] = 20
    train(optimizer)
    assert optimizer.param_groups[0]["step"] == 3


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"lr": "fast"}, "lr of a parameter group is 'fast'"),
        ({"lr": float("nan")}, "lr of a parameter group is nan"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] is 1.0"),
        ({"betas": 0.9}, "betas is 0.9"),
        ({"betas": (torch.ones(2), 0.9)}, r"betas\[0\] is tensor"),
        ({"lr": torch.ones(2)}, "lr is a tensor of 2 numbers"),
        ({"weight_decay": None}, "weight_decay of a parameter group is None"),
    ],
    ids=str,
)
def test_wrong_numbers_set_by_hand_are_named(numbers: dict[str, Any], message: str) -> None:
    optimizer = FULL.build([parameter(3, 2)], total_steps=40)
    train(optimizer, 2)
    optimizer.param_groups[0] |= numbers
    with pytest.raises(ConfigError, match=message):
        train(optimizer)


@pytest.mark.parametrize(
    ("numbers", "same"),
    [
        ({"lr": -1e-20}, {"lr": 0.0}),
        ({"betas": (torch.tensor(0.5), torch.tensor([0.75]))}, {"betas": (0.5, 0.75)}),
        ({"lr": torch.tensor([0.25])}, {"lr": 0.25}),
    ],
    ids=["rounded below zero", "betas as tensors", "lr as a tensor"],
)
def test_numbers_that_a_step_takes_are_taken_when_parameters_are_laid_out_anew(
    way: None, numbers: dict[str, Any], same: dict[str, Any]
) -> None:
    results = []
    for chosen in (numbers, same):
        p, late = parameter(3, 2), parameter(2)
        optimizer = ADAMW.build([p, late])
        train(optimizer)
        optimizer.param_groups[0] |= chosen
        train(optimizer)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(optimizer)
        results.append(arrays([p, late]))
    assert_close(*results)


def test_wrong_groups_and_state_are_named() -> None:
    p = parameter(3, 2)
    optimizer = FULL.build([p], total_steps=40)
    train(optimizer, 2)
    optimizer.param_groups.append({"params": [p]})
    with pytest.raises(ConfigError, match="in two parameter groups"):
        optimizer.step()
    optimizer.param_groups[1]["params"] = parameter(2)
    with pytest.raises(ConfigError, match="must be a list of tensors"):
        optimizer.step()
    optimizer.param_groups.clear()
    with pytest.raises(ConfigError, match="no parameter groups left"):
        optimizer.step()
    optimizer.add_param_group({"params": [p], "step": 2})
    optimizer.state[p]["lookahead.slow"] = torch.zeros(2)
    with pytest.raises(ConfigError, match=r"lookahead.slow .* shape \(3, 2\) has the shape \(2,\)"):
        optimizer.step()
    optimizer.state.pop(p)
    p.data = torch.ones(5, dtype=torch.float64)
    train(optimizer, 1)


# Loading


def test_state_of_another_shape_is_refused() -> None:
    saved = ADAMW.build([parameter(3, 1)])
    train(saved)
    optimizer = ADAMW.build([parameter(3, 2)])
    train(optimizer)
    before = optimizer.state_dict()
    with pytest.raises(ConfigError, match=r"parameter 0 has the shape \(3, 1\), but the parameter has \(3, 2\)"):
        optimizer.load_state_dict(saved.state_dict())
    assert str(optimizer.state_dict()) == str(before)


def test_state_that_lacks_something_is_refused() -> None:
    optimizer = FULL.build([parameter(3, 2)], total_steps=40)
    train(optimizer)
    saved = optimizer.state_dict()
    del saved["state"][0]["lookahead.slow"]
    with pytest.raises(ConfigError, match=r"lacks lookahead\.slow"):
        optimizer.load_state_dict(saved)


def test_hooks_come_before_the_look_at_what_is_loaded() -> None:
    source, p = Config(lr=1.0, components={"amsgrad": {}}).build([parameter(3, 2)]), parameter(3, 2)
    train(source)
    optimizer = ADAMW.build([p])
    seen = []

    def drop_amsgrad(_: object, state_dict: dict[str, Any]) -> dict[str, Any]:
        entry = {name: x for name, x in state_dict["state"][0].items() if not name.startswith("amsgrad")}
        return {"state": {0: entry}, "param_groups": [{**state_dict["param_groups"][0], "components": {}}]}

    optimizer.register_load_state_dict_pre_hook(drop_amsgrad)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.state[p]["first_moment.mean"].clone()))
    optimizer.load_state_dict(source.state_dict())
    assert torch.equal(seen[0], next(iter(source.state.values()))["first_moment.mean"])
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1


def test_a_training_is_extended_by_building_for_more_steps(way: None) -> None:
    """The count goes on, and the schedule is that of the new length; without one it is the state's."""
    short = FULL.build([parameter(3, 2)], total_steps=10)
    train(short, 10)
    longer = FULL.build([parameter(3, 2)], total_steps=100)
    longer.load_state_dict(short.state_dict())
    assert longer.param_groups[0] | {"params": []} == short.param_groups[0] | {"params": [], "total_steps": 100}
    train(longer)
    assert longer.get_last_lr() == [pytest.approx(NUMBERS["lr"] * 11 / 22)]
    constant = Config(**NUMBERS).build([parameter(3, 2)])
    with_length = Config(**NUMBERS).build([parameter(3, 2)], total_steps=10)
    constant.load_state_dict(with_length.state_dict())
    assert constant.param_groups[0]["total_steps"] == 10


def test_the_state_of_one_parameter_is_saved_alone() -> None:
    params = [parameter(8, 8) for _ in range(50)]
    optimizer = FULL.build(params, total_steps=40)
    train(optimizer)
    file = io.BytesIO()
    torch.save(optimizer.state_dict()["state"][0], file)
    numbers = sum(x.numel() for x in optimizer.state[params[0]].values())
    assert file.tell() < 8 * numbers + 5000
    file.seek(0)
    assert torch.load(file, weights_only=True).keys() == optimizer.state[params[0]].keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_loading_does_not_round_the_state(dtype: torch.dtype) -> None:
    p = nn.Parameter(torch.ones(3, 2, dtype=dtype))
    optimizer = FULL.build([p], total_steps=40)
    train(optimizer, 3)
    other = FULL.build([nn.Parameter(p.detach().clone())], total_steps=40)
    other.load_state_dict(optimizer.state_dict())
    for one, two in zip(
        optimizer.state_dict()["state"][0].values(), other.state_dict()["state"][0].values(), strict=True
    ):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)


# What the constructor takes


def test_a_tensor_lr_is_taken_by_the_constructor(way: None) -> None:
    lr, p, twin = torch.tensor(0.01, dtype=torch.float64), parameter(3, 2), parameter(3, 2)
    optimizer, other = Ranger21([p], lr=lr, total_steps=40), Ranger21([twin], lr=0.01, total_steps=40)
    assert optimizer.param_groups[0]["lr"] is lr
    assert optimizer.config == other.config
    for _ in range(4):
        train(optimizer)
        train(other)
        lr.mul_(0.5)
        other.param_groups[0]["lr"] *= 0.5
    assert not differ(arrays([p]), arrays([twin]))
    with pytest.raises(ConfigError, match="lr is"):
        Ranger21([p], lr=torch.ones(2), total_steps=40)
    with pytest.raises(ConfigError, match=r"lr is -1"):
        Ranger21([p], lr=torch.tensor(-1.0), total_steps=40)


@pytest.mark.parametrize("config", [ADAMW, FULL], ids=["adamw", "ranger21"])
def test_maximize_is_to_minimize_the_negative(way: None, config: Config) -> None:
    up, also_up, down = parameter(3, 2), parameter(3, 2), parameter(3, 2)
    ours = config.build([{"params": [up]}, {"params": [also_up], "maximize": False}], total_steps=40, maximize=True)
    ours.param_groups[1]["maximize"] = True
    for t in range(7):
        gradient = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
        up.grad, also_up.grad = -gradient, -gradient
        ours.step()
        assert torch.equal(up.grad, -gradient)
        down.grad = gradient
    other = config.build([down], total_steps=40)
    for t in range(7):
        down.grad = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
        other.step()
    assert not differ(arrays([up, also_up]), arrays([down, down]))
    with pytest.raises(ConfigError, match="maximize is 1"):
        config.build([{"params": [up], "maximize": 1}], total_steps=40)

"""The vectorized step: candidates do not notice each other, cost no Python loop, and never wait for the device."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from autoranger import Component, Config, Signals, Stage
from autoranger.components.core.component import registry
from autoranger.components.presets import RANGER21
from tests.conftest import (
    SMALL,
    Array,
    Population,
    Problem,
    Transfers,
    Uploads,
    assert_close,
    feed,
    follow,
    populate,
)

K = 12
FULL = Config(lr=1e-2, weight_decay=0.1, components=dict.fromkeys(RANGER21, True))
ADAMW = Config(lr=1e-2, weight_decay=0.1)
GLOBAL = Config(lr=1e-2, weight_decay=0.1, components={"stable_weight_decay": {"scope": "global"}})


def random_config(rng: np.random.Generator) -> Config:
    """Any subset of the eight with any hyperparameters and numbers."""
    components: dict[str, dict[str, Any]] = {}
    for name in RANGER21:
        if rng.random() < 0.6:
            components[name] = {}
            for hyper in registry[name].hypers.values():
                if hyper.choices:
                    components[name][hyper.name] = str(rng.choice(hyper.choices))
                else:
                    value = rng.uniform(hyper.low, hyper.high)
                    components[name][hyper.name] = int(value) if hyper.integer else value
    return Config(
        lr=10 ** rng.uniform(-3, -1.5),
        betas=(rng.uniform(0.5, 0.98), 1 - 10 ** rng.uniform(-4, -1)),
        eps=10 ** rng.uniform(-10, -4),
        weight_decay=rng.choice([0.0, 10 ** rng.uniform(-4, -1)]),
        components=components,
    )


def random_configs(seed: int, count: int = K) -> list[Config]:
    rng = np.random.default_rng(seed)
    return [random_config(rng) for _ in range(count)]


def assert_same(one: Sequence[Array], other: Sequence[Array]) -> None:
    """Equal bit for bit."""
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)


# Candidates and single optimizers


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_each_row_of_a_population_is_the_single_optimizer(seed: int, dtype: torch.dtype, tolerance: float) -> None:
    configs = random_configs(seed)
    for c, row in zip(configs, populate(configs, SMALL, dtype), strict=True):
        assert_close(row, follow(c, SMALL, dtype), tolerance)


@pytest.mark.parametrize("c", [FULL, ADAMW, GLOBAL, *random_configs(5, 3)], ids=lambda c: "+".join(c.components)[:40])
def test_a_gated_candidate_is_the_pruned_one(c: Config) -> None:
    """Components that are on for all run bare, those off for all are not there; a mixture selects."""
    alone, mixed = populate([c], SMALL)[0], populate([FULL, c, ADAMW, GLOBAL], SMALL)[1]
    assert_close(mixed, alone, 1e-12)


def test_what_is_off_for_all_is_not_there() -> None:
    modules = Population([ADAMW, GLOBAL], SMALL).core.modules()
    present = {module.id for module in modules if isinstance(module, Component)}
    assert present & set(registry) == {"stable_weight_decay"}


def test_candidates_differ_in_scope_of_stable_weight_decay() -> None:
    local = Config(lr=1e-2, weight_decay=0.1, components={"stable_weight_decay": {}})
    for c, row in zip([local, GLOBAL], populate([local, GLOBAL], SMALL), strict=True):
        assert_close(row, follow(c, SMALL), 1e-12)


# NaN, and rows that are frozen


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
@pytest.mark.parametrize("victim", [0, 3, K - 1])
def test_a_diverging_candidate_touches_no_other(value: float, victim: int) -> None:
    configs = random_configs(6)
    healthy, sick = Population(configs, SMALL), Population(configs, SMALL)
    for t, step_grads in enumerate(SMALL.grads):
        healthy.step(step_grads)
        grads = sick.grads(step_grads)
        if t == 3:
            grads = [g if g is None else g.index_fill(0, torch.tensor([victim]), value) for g in grads]
        sick.core(sick.thetas, grads)
    rows = list(zip(sick.rows(), healthy.rows(), strict=True))
    assert not all(np.isfinite(p).all() for p in rows[victim][0]) or np.isfinite(value)
    for k, (with_nan, without) in enumerate(rows):
        if k != victim:
            assert_same(with_nan, without)


class Poison(Component, register=False):
    """Answer with NaN, in whatever it can."""

    state: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {"memory": torch.zeros_like}

    def forward(self, x: Signals) -> Signals:
        poisoned = {
            name: torch.full_like(signal, torch.nan)
            for name, signal in x._asdict().items()
            if isinstance(signal, Tensor) and signal.is_floating_point()
        }
        state = {name: torch.full_like(value, torch.nan) for name, value in x.state.items()}
        return x._replace(**poisoned, state=state)


@pytest.mark.parametrize("stage", Stage, ids=lambda stage: stage.name.lower())
def test_a_component_that_answers_nan_touches_only_those_who_have_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = type(
        "Poison", (Poison,), {"stage": stage, "state": {} if stage == Stage.RATE else Poison.state}, register=False
    )
    monkeypatch.setitem(registry, "poison", cls)
    poisoned = Config(components=FULL.components | {"poison": {}})
    with_poison = populate([poisoned, FULL, ADAMW], SMALL)
    without = populate([FULL, FULL, ADAMW], SMALL)
    assert not all(np.isfinite(p).all() for p in with_poison[0])
    assert_same(with_poison[1], without[1])
    assert_same(with_poison[2], without[2])


def test_a_frozen_candidate_keeps_its_parameters_and_state() -> None:
    configs = [FULL, FULL, ADAMW, GLOBAL]
    population, free = Population(configs, SMALL), Population(configs, SMALL)
    active = torch.tensor([True, False, True, True]).view(-1, 1, 1, 1)
    for grads in SMALL.grads[:4]:
        population.step(grads)
        free.step(grads)
    frozen_row = population.rows()[1]
    frozen_state = [b[1].clone() for stack in population.core.stacks for b in stack.buffers()]
    for grads in SMALL.grads[4:]:
        population.step(grads, active)
        free.step(grads)
    assert_same(population.rows()[1], frozen_row)
    for before, after in zip(frozen_state, (b[1] for s in population.core.stacks for b in s.buffers()), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    for k in (0, 2, 3):
        assert_same(population.rows()[k], free.rows()[k])


def test_a_frozen_candidate_may_be_full_of_nan() -> None:
    population, free = Population([FULL, GLOBAL], SMALL), Population([FULL, GLOBAL], SMALL)
    active = torch.tensor([True, False]).view(-1, 1, 1, 1)
    for grads in SMALL.grads:
        poisoned = [g if g is None else g.index_fill(0, torch.tensor([1]), torch.nan) for g in population.grads(grads)]
        population.core(population.thetas, poisoned, [active] * len(population.thetas))
        free.step(grads)
    assert_same(population.rows()[0], free.rows()[0])
    assert_same(population.rows()[1], SMALL.params)


# State


def test_a_population_resumes_from_its_state_dict() -> None:
    configs = random_configs(7)
    population, resumed = Population(configs, SMALL), Population(configs, SMALL)
    for grads in SMALL.grads[:7]:
        population.step(grads)
    resumed.core.load_state_dict(copy.deepcopy(population.core.state_dict()))
    resumed.thetas = [theta.clone() for theta in population.thetas]
    for grads in SMALL.grads[7:]:
        population.step(grads)
        resumed.step(grads)
    for one, other in zip(population.rows(), resumed.rows(), strict=True):
        assert_same(one, other)


class Rotate(Component, register=False):
    """Keep the last three gradients, and add the oldest one."""

    stage = Stage.GRADIENT
    state: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = dict.fromkeys(
        ("first", "second", "third"), torch.zeros_like
    )
    order: ClassVar[tuple[str, ...]] = ()

    def forward(self, x: Signals) -> Signals:
        new = {"first": x.grad, "second": x.state["first"], "third": x.state["second"]}
        return x._replace(grad=x.grad + x.state["third"], state={name: new[name] for name in self.order})


@pytest.mark.parametrize(
    "order", [("third", "second", "first"), ("first", "second", "third"), ("second", "third", "first")], ids="-".join
)
def test_state_may_move_from_one_buffer_to_another(order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """A component returns what its state becomes; in which order is not its concern."""
    monkeypatch.setitem(registry, "rotate", type("Rotate", (Rotate,), {"order": order}, register=False))
    problem = SMALL.part("matrix", "vector")
    grads: list[list[Array]] = [[g for g in step if g is not None] for step in problem.grads]
    delayed = [
        [g + grads[t - 3][i] if t >= 3 else g for i, g in enumerate(step_grads)] for t, step_grads in enumerate(grads)
    ]
    expected = follow(ADAMW, Problem(problem.params, [list(step) for step in delayed], problem.total_steps))
    rotating = Config(lr=ADAMW.lr, weight_decay=ADAMW.weight_decay, components={"rotate": {}})
    assert_close(follow(rotating, problem), expected, 1e-12)


# Cost


class Operations(TorchDispatchMode):
    """Counts the operators that torch runs; views, which run nothing, are left out."""

    VIEWS = ("aten.detach", "aten.view", "aten._unsafe_view", "aten.alias", "aten.unbind", "aten.slice", "aten.select")
    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal.default", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not str(func).startswith(self.VIEWS):
            self.counts[str(func)] += 1
        return func(*args, **kwargs or {})

    @property
    def waits(self) -> list[str]:
        """Operators that make the host wait for the device's numbers."""
        return [name for name in self.counts if name.removeprefix("aten.").startswith(self.WAITS)]


def operations_of_step(configs: Sequence[Config]) -> Counter[str]:
    population = Population(configs, SMALL)
    population.step(SMALL.grads[0])
    grads = population.grads(SMALL.grads[1])
    with Operations() as operations:
        population.core(population.thetas, grads)
    return operations.counts


def test_candidates_are_an_axis_and_no_loop() -> None:
    few, many = operations_of_step([FULL, GLOBAL]), operations_of_step([FULL, GLOBAL] * 32)
    assert few
    assert few == many


def operations_of_optimizer(tensors: int) -> Counter[str]:
    params = [nn.Parameter(torch.randn(5, 7)) for _ in range(tensors)]
    optimizer = FULL.build(params, total_steps=10)
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer.step()
    with Operations() as operations:
        optimizer.step()
    return operations.counts


def test_equal_shaped_tensors_are_an_axis_and_no_loop() -> None:
    few, many = operations_of_optimizer(2), operations_of_optimizer(40)
    assert few
    assert few == many


def test_what_is_off_costs_nothing() -> None:
    assert operations_of_step([ADAMW, ADAMW]).total() < 0.5 * operations_of_step([FULL, FULL]).total()
    assert operations_of_step([FULL, FULL]).total() < operations_of_step([FULL, ADAMW]).total()


# The device


def test_no_step_of_a_population_waits_for_the_device() -> None:
    population = Population([FULL, ADAMW, GLOBAL], SMALL)
    active = torch.tensor([True, True, False]).view(-1, 1, 1, 1)
    for t, step_grads in enumerate(SMALL.grads):
        grads = population.grads(step_grads)
        with Operations() as operations:
            population.core(population.thetas, grads, [active] * len(grads) if t > 5 else None)
        assert not operations.waits


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float lr", "tensor lr"])
def test_no_step_of_an_optimizer_waits_for_the_device(tensor_lr: bool) -> None:
    params = SMALL.leaves()
    optimizer = FULL.build(params, total_steps=SMALL.total_steps)
    group = optimizer.param_groups[0]
    if tensor_lr:
        group["lr"] = torch.tensor(group["lr"])
    for step_grads in SMALL.grads:
        feed(params, step_grads)
        group["lr"] *= 0.9
        group["weight_decay"] *= 0.9
        with Operations() as operations:
            optimizer.step()
        assert not operations.waits


@pytest.mark.parametrize("c", [FULL, GLOBAL], ids=["all eight", "global scope"])
@pytest.mark.parametrize("missing", [False, True], ids=["all gradients", "gradients that come and go"])
def test_a_step_moves_nothing_between_host_and_device(c: Config, missing: bool) -> None:
    """On the meta device tensors have no numbers: whatever looks at one raises, and a transfer is seen.

    The first four steps may prepare things, such as a mask for each pattern of missing gradients.
    """
    params = [nn.Parameter(torch.empty(shape, device="meta")) for shape in ((4, 3, 3, 3), (5, 7), (5, 7), (7,), ())]
    optimizer = c.build(params, total_steps=10)
    for t in range(8):
        for i, p in enumerate(params):
            p.grad = None if missing and (i + t) % 4 == 0 else torch.empty_like(p)
        optimizer.param_groups[0]["lr"] *= 0.9
        with Transfers() as transfers, Uploads() as uploads:
            optimizer.step()
        if t >= 4:
            assert not transfers.found + uploads.found
    assert all(value.device.type == "meta" for p in params for value in optimizer.state[p].values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("missing", [False, True], ids=["all gradients", "gradients that come and go"])
@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float lr", "tensor lr"])
def test_no_step_on_cuda_waits_for_it(missing: bool, tensor_lr: bool) -> None:
    params = [nn.Parameter(torch.randn(5, 7, device="cuda")) for _ in range(4)]
    optimizer = FULL.build(params, total_steps=10)
    group = optimizer.param_groups[0]
    if tensor_lr:
        group["lr"] = torch.tensor(1e-2, device="cuda")
    for t in range(10):
        for i, p in enumerate(params):
            p.grad = None if missing and (i + t) % 3 == 0 else torch.randn_like(p)
        group["lr"] *= 0.9
        torch.cuda.set_sync_debug_mode("error" if t > 4 else "default")
        try:
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="Dynamo of torch 2.6 cannot trace a named tuple")
def test_nothing_recompiles_when_numbers_change() -> None:
    problem = SMALL.part("conv", "matrix", "vector")
    configs = [FULL, GLOBAL, ADAMW]
    population, plain = Population(configs, problem), Population(configs, problem)
    torch._dynamo.reset()
    counter = CompileCounter()  # traces the step to a graph, and runs that as it is
    compiled = torch.compile(population.core, backend=counter, fullgraph=True)
    for t, grads in enumerate(problem.grads[:9]):
        for each in (population, plain):
            each.core.lr.fill_(0.01 / (t + 1))
            each.core.weight_decay.mul_(0.5)
            each.core.beta1.fill_(0.9 - 0.01 * t)
            each.core.total.fill_(20 + t)
        compiled(population.thetas, population.grads(grads))
        plain.step(grads)
    assert counter.frame_count == 1
    for one, other in zip(population.rows(), plain.rows(), strict=True):
        assert_close(one, other, 1e-12)

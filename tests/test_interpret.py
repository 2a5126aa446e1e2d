"""A recorded step that Python and torch run block by block computes what the step computes, whatever is on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autoranger import Component, Config
from autoranger.components.core.component import registry
from autoranger.components.kernel.cpp.source import Cpp
from autoranger.components.kernel.interpreter import blocks, interpret, scalars
from autoranger.components.kernel.interpreter.interpret import Interpreter
from autoranger.components.kernel.recording.printer import COMMON
from autoranger.components.kernel.recording.program import Program
from autoranger.components.optimizer import layout
from autoranger.components.optimizer.layout import ParameterLayout
from tests.conftest import PROBLEM, SMALL, advance, arrays, assert_close, feed
from tests.conftest import Population as Candidates
from tests.recorded import (
    CONFIGS,
    EDGES,
    FULL,
    GLOBAL,
    NUMBERS,
    ODD,
    SPECIAL,
    Everything,
    Measuring,
    Peeking,
    assert_agree,
    check_program,
    in_half,
    negative_view,
    operated,
    programs,
    replaced,
    run,
    run_in_groups,
    shared,
    tolerance,
    trained,
    transposed,
    with_eight,
)

pytestmark = pytest.mark.usefixtures("interpreter")


@pytest.fixture(params=[None, 4], ids=["whole", "in blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that small tensors have several of them, too."""
    if request.param:
        monkeypatch.setattr(interpret, "BLOCK", request.param)


def compared(make: Callable[[], list[Tensor]], tolerance: float = 1e-9) -> None:
    """What is made as recorded agrees with what the components themselves make, which is something else."""
    ours = make()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "interpreter", lambda *_: None)
        theirs = make()
    assert_agree(ours, theirs, tolerance)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_computes_what_the_operations_do(config: Config) -> None:
    """On everything that is awkward: single numbers, single columns, zeros, gradients that come and go."""
    compared(lambda: run(config, PROBLEM.without("large").first(7), compile=False), tolerance(config))


def test_large_tensors_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpret, "BLOCK", 1 << 12)
    problem = PROBLEM.part("large", "vector")
    compared(lambda: run(FULL, problem, compile=False))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str
)
@pytest.mark.parametrize("config", [FULL, GLOBAL, Config(**NUMBERS)], ids=["ranger21", "global sums", "adamw"])
def test_every_type_of_parameter_works(config: Config, dtype: torch.dtype, tolerance: float) -> None:
    problem = PROBLEM.without("outliers", "dead", "single column", "scalar", "large").first(6)
    compared(lambda: run(config, problem, dtype, compile=False), tolerance)


@pytest.mark.parametrize("cls", [None, *ODD])
def test_types_may_be_mixed(cls: type[Component] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FULL
    if cls:
        monkeypatch.setitem(registry, cls.id, cls)
        config = Config(**NUMBERS, components={cls.id: {}})

    def train() -> list[Tensor]:
        params = [nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4).to(t)) for t in (torch.bfloat16, torch.float32)]
        optimizer = config.build(params, total_steps=5, compile=False)
        for _ in range(5):
            for p in params:
                p.grad = torch.ones_like(p) * torch.arange(4).to(p.dtype)
            optimizer.step()
        return [p.detach().double() for p in params]

    compared(train, 1e-2)


def test_groups_have_their_own_numbers() -> None:
    compared(lambda: run_in_groups(compile=False), 1e-10)


@pytest.mark.usefixtures("block")
def test_candidates_may_differ_in_everything() -> None:
    """Components that only some have on, numbers of their own, some that no longer train, one full of NaN."""
    configs = [FULL, GLOBAL, Config(lr=0.1), with_eight("softplus_denominator"), with_eight("adabelief_variance")]
    ours, theirs = (Candidates(configs, SMALL) for _ in range(2))
    ours.thetas[0][2], theirs.thetas[0][2] = torch.nan, torch.nan
    recorded = Interpreter(ours.core, ours.thetas)
    active = torch.tensor([True, True, False, True, True]).view(-1, 1, 1, 1)
    for t, grads in enumerate(SMALL.grads):
        mask = active if t > 4 else None
        recorded(ours.thetas, ours.grads(grads), None if mask is None else [mask] * len(ours.thetas))
        theirs.step(grads, mask)
    for row, expected in zip(ours.rows(), theirs.rows(), strict=True):
        assert_close(row, expected, 1e-9)


@pytest.mark.usefixtures("block")
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(program=programs(), seed=st.integers(0, 99))
def test_any_program_is_run_right(program: Program, seed: int) -> None:
    check_program(program, seed, Interpreter)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("program", SPECIAL.values(), ids=SPECIAL)
def test_special_programs_are_run_right(program: Program) -> None:
    check_program(program, 0, Interpreter)


@pytest.mark.parametrize("change", [in_half, negative_view, transposed, replaced, shared])
def test_what_happens_to_tensors_is_noticed(change: Callable[[nn.Parameter, torch.optim.Optimizer], None]) -> None:
    compared(lambda: trained(change, compile=False), 1e-5)


@pytest.mark.parametrize(
    "beside", [{}, {"global_norm_clipping": {}}, {"stable_weight_decay": {"scope": "global"}}], ids=str
)
@pytest.mark.parametrize("cls", [*ODD, Everything, Peeking, Measuring])
def test_whatever_a_component_does_the_result_is_the_same(
    cls: type[Component], beside: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry, cls.id, cls)
    config = Config(**NUMBERS, components={cls.id: {}} | beside)
    compared(lambda: run(config, SMALL, compile=False))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "operation", [torch.maximum, torch.minimum, torch.remainder, torch.add, torch.div, torch.lt, torch.atan2]
)
def test_operations_are_torchs_at_the_edges(operation: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
    compared(lambda: [operated(operation, dtype, compile=False)], 1e-6)


def test_every_operation_of_a_program_has_a_meaning() -> None:
    known = Cpp.operations.keys() - {"fill"}
    assert known <= blocks.OPERATIONS.keys() | {"number"}
    assert known <= scalars.OPERATIONS.keys() | COMMON.keys()


@pytest.mark.parametrize("op", sorted(scalars.OPERATIONS.keys() - {"select", "not", "number"}))
def test_operations_on_single_numbers_are_torchs(op: str) -> None:
    """Also where Python would raise: for roots of negative numbers, divisions by zero, and what is not a number."""
    takes = {"pow": 2, "div": 2, "remainder": 2, "maximum": 2, "minimum": 2, "lerp": 3}.get(op, 1)
    for args in itertools.product([*EDGES.double().tolist(), 0.5], repeat=takes):
        expected = getattr(torch, op)(*(torch.tensor(x, dtype=torch.float64) for x in args))
        found = torch.tensor(scalars.OPERATIONS[op](*args), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0, equal_nan=True, msg=f"{op} {args}")


def test_the_default_device_is_no_concern() -> None:
    params, others = SMALL.leaves(), SMALL.leaves()
    ours, theirs = (FULL.build(ps, total_steps=12, compile=False) for ps in (params, others))
    for grads in SMALL.grads[:3]:
        feed(params, grads)
        with torch.device("meta"):
            ours.step()
        advance(theirs, others, [grads])
    assert_close(arrays(params), arrays(others))


def test_memory_for_long_rows_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpret, "BLOCK", 16)
    p = nn.Parameter(torch.ones(64))
    p.grad = torch.ones(64)
    bound = ParameterLayout(FULL, FULL.build([p], total_steps=3).param_groups, {}, False)
    with torch.no_grad():
        bound.step()
    assert bound.interpreter is not None
    assert not bound.interpreter.registers.all


def test_inference_mode_leaves_nothing_behind() -> None:
    def train() -> list[Tensor]:
        params = [nn.Parameter(torch.ones(3, 4)) for _ in range(2)]
        optimizer = FULL.build(params, total_steps=6, compile=False)
        for t in range(6):
            params[0].grad, params[1].grad = torch.ones(3, 4), None if t % 3 else torch.ones(3, 4)
            with torch.inference_mode(t == 1):
                optimizer.step()
        return [p.detach() for p in params]

    compared(train, 1e-6)


def test_it_is_what_runs_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    monkeypatch.setattr(Interpreter, "__call__", lambda self, *_: steps.append(self))
    run(FULL, SMALL.first(3))
    assert len(steps) == 3

"""The Triton kernels compute what the step computes. Without a GPU, Triton's interpreter runs them on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autoranger import Config, ConfigError
from autoranger.components.core.component import registry
from autoranger.components.core.step import Step
from autoranger.components.kernel.compile import BACKENDS
from autoranger.components.kernel.recording.program import Program
from autoranger.components.kernel.recording.recording import schedules
from autoranger.components.kernel.triton import build as triton_build
from autoranger.components.kernel.triton import kernel as triton_kernel
from autoranger.components.kernel.triton import source as triton_source
from autoranger.components.kernel.triton.kernel import Sent, TritonKernel
from autoranger.components.presets import RANGER21
from tests.conftest import PROBLEM, Array, Problem, assert_close
from tests.conftest import Population as Candidates
from tests.recorded import (
    CONFIGS,
    FULL,
    GLOBAL,
    NUMBERS,
    SPECIAL,
    Everything,
    assert_agree,
    check_program,
    operated,
    programs,
    with_eight,
)

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")

if find_spec("triton") is None:
    pytest.skip("needs Triton: pip install triton", allow_module_level=True)
if not HAS_GPU:
    # Triton looks at it once, when it is imported.
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton is imported already, without its interpreter: run this file alone", allow_module_level=True)
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton  # noqa: E402

if not HAS_GPU and triton.__version__ < "3.7" and np.__version__ >= "2.4":
    pytest.skip("needs Triton 3.7: interpreters before that need a NumPy before 2.4", allow_module_level=True)

import triton.language as tl  # noqa: E402
from triton.language.extra import libdevice  # noqa: E402

from autoranger.components.kernel.triton import runtime  # noqa: E402

# Few steps on few parameters, since the interpreter is slow; one of them has no gradient in the first step.
SOME = PROBLEM.part("conv", "sometimes", "zero bias").first(4)

# With slow weights that move in one of these steps.
SOON = {"lookahead": {"k": 2}}
QUICK = CONFIGS | {
    "lookahead": Config(**NUMBERS, components=SOON),
    "ranger21": Config(**NUMBERS, components=dict.fromkeys(RANGER21, True) | SOON),
}


def emulated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a GPU's mathematical library, which the interpreter lacks, by NumPy."""

    def apply(*xs: Any) -> Any:
        from triton.runtime.interpreter import TensorHandle

        like = max(xs, key=lambda x: x.handle.data.size)
        data = function(*(x.handle.data for x in xs))
        return tl.tensor(TensorHandle(np.asarray(data, like.handle.data.dtype), like.handle.dtype), like.type)

    return apply


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton is what compiles; in its interpreter where there is no GPU."""
    monkeypatch.setitem(BACKENDS, DEVICE.type, TritonKernel)
    if not HAS_GPU:
        functions = ("exp", "expm1", "log", "log1p", "cos", "sin", "tanh", "fmod")
        for name, function in {"pow": np.power, **{name: getattr(np, name) for name in functions}}.items():
            monkeypatch.setattr(libdevice, name, emulated(function))


@pytest.fixture(autouse=True)
def quiet_numpy() -> Any:
    """In the interpreter NumPy warns of what is then not selected."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles and items so small that small tensors have several of them."""
    monkeypatch.setattr(triton_source, "TILES", {True: (2, 4), False: (1, 4)})
    monkeypatch.setattr(triton_kernel, "TILES", {True: (2, 4), False: (1, 4)})
    monkeypatch.setattr(triton_kernel, "ITEM", 8)
    if not HAS_GPU:
        monkeypatch.setattr(runtime, "BLOCK", tl.constexpr(2))


def leaves(problem: Problem, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(p, dtype=dtype, device=DEVICE)) for p in problem.params]


def feed(params: Sequence[Tensor], grads: Sequence[Array | None]) -> None:
    for p, grad in zip(params, grads, strict=True):
        p.grad = None if grad is None else torch.tensor(grad, dtype=p.dtype, device=DEVICE)


def run(config: Config, problem: Problem, dtype: torch.dtype = torch.float64, **how: Any) -> list[Tensor]:
    """The parameters and all state after the problem's steps."""
    params = leaves(problem, dtype)
    optimizer = config.build(params, total_steps=problem.total_steps, **how)
    for grads in problem.grads:
        feed(params, grads)
        optimizer.step()
    state = [value for p in params for _, value in sorted(optimizer.state.get(p, {}).items())]
    return [x.detach().double().cpu() for x in (*params, *state)]


# Numbers


@pytest.mark.parametrize("config", QUICK.values(), ids=QUICK)
def test_it_computes_what_the_operations_do(config: Config) -> None:
    try:
        compiled = run(config, SOME, compile=True)
    except ConfigError as error:
        if "operations on matrices" not in str(error):
            raise
        pytest.skip(str(error))
    assert_agree(compiled, run(config, SOME, compile=False), 1e-9)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("name", ["ranger21", "madgrad"])
def test_state_may_be_short(name: str) -> None:
    """What is rounded by chance is so to the same side, unless a number differs by rounding."""
    results = [run(QUICK[name], SOME, torch.float32, compile=how, state_dtype=torch.bfloat16) for how in (True, False)]
    differ = torch.cat([(x != y).flatten() for x, y in zip(*results, strict=True)])
    assert_agree(*results, 2e-2)
    assert differ.float().mean() < 0.2


def test_edits_between_steps_count() -> None:
    """State cleared, a parameter replaced, weights loaded: the tables are made anew where they have to be."""
    config = Config(**NUMBERS, components={"lookahead": {"k": 2}, "positive_negative_momentum": {}})
    results = []
    for how in (True, False):
        params = [nn.Parameter(torch.ones(2, 3, dtype=torch.float64, device=DEVICE)) for _ in range(3)]
        optimizer = config.build(params, compile=how)
        for t in range(6):
            if t == 1:
                params[1] = optimizer.param_groups[0]["params"][1] = nn.Parameter(torch.full_like(params[1], 2))
            if t == 2:
                optimizer.state.clear()
            if t == 3:
                with torch.no_grad():
                    params[0].fill_(7)
            if t == 4:
                optimizer.state[params[0]]["second_moment.variance"] = torch.full_like(params[0], 0.5)
            for p in params[: 2 + (t > 1)]:
                p.grad = torch.full_like(p, 0.1 * (t + 1))
            optimizer.step()
        results.append([x.detach().cpu() for p in params for x in (p, *optimizer.state[p].values())])
    assert_agree(*results, 1e-9)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("config", [FULL, GLOBAL, with_eight("gradient_normalization")], ids=["full", "global", "std"])
def test_tensors_may_be_larger_than_a_tile_and_an_item(config: Config) -> None:
    problem = PROBLEM.part("conv", "outliers", "single row", "single column", "vector").first(3)
    assert_agree(run(config, problem, compile=True), run(config, problem, compile=False), 1e-9)


def test_every_operation_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry, Everything.id, Everything)
    config = Config(**NUMBERS, components={Everything.id: {}})
    assert_agree(run(config, SOME, compile=True), run(config, SOME, compile=False), 1e-9)


@pytest.mark.parametrize("operation", [torch.maximum, torch.minimum, torch.remainder, torch.div, torch.lt])
def test_operations_are_torchs_at_the_edges(operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Signs of zero, infinities, NaN: what is stored is what torch would store."""
    ours, theirs = (operated(operation, torch.float64, DEVICE.type, compile=how) for how in (True, False))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.usefixtures("small_tiles")
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(program=programs(), seed=st.integers(0, 99))
def test_any_program_is_printed_right(program: Program, seed: int) -> None:
    check_program(program, seed, TritonKernel, DEVICE.type)


@pytest.mark.parametrize("program", SPECIAL.values(), ids=SPECIAL)
def test_special_programs_are_printed_right(program: Program) -> None:
    check_program(program, 0, TritonKernel, DEVICE.type)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)], ids=str
)
@pytest.mark.parametrize("config", [FULL, GLOBAL], ids=["ranger21", "global sums"])
def test_every_type_of_parameter_works(config: Config, dtype: torch.dtype, tolerance: float) -> None:
    problem = PROBLEM.part("conv", "matrix", "vector").first(4)
    assert_agree(run(config, problem, dtype, compile=True), run(config, problem, dtype, compile=False), tolerance)


def test_groups_have_their_own_numbers() -> None:
    results = []
    for compiled in (True, False):
        params = leaves(SOME)
        groups = [{"params": params[:2], "lr": 0.03}, {"params": params[2:], "betas": (0.5, 0.9), "total_steps": 20}]
        optimizer = FULL.build(groups, total_steps=12, compile=compiled)
        for t, grads in enumerate(SOME.grads):
            optimizer.param_groups[1]["lr"] = 0.02 / (t + 1)
            feed(params, grads)
            optimizer.step()
        results.append([p.detach().cpu() for p in params])
    assert_agree(*results, 1e-10)


def test_candidates_may_differ_in_everything() -> None:
    """Components that only some have on, numbers of their own, some that no longer train, one full of NaN."""
    configs = [FULL, GLOBAL, Config(lr=0.1), with_eight("softplus_denominator")]
    ours, theirs = (Candidates(configs, SOME) for _ in range(2))
    for population in (ours, theirs):
        population.thetas[0][2] = torch.nan
        population.core.to(DEVICE)
        population.thetas = [theta.to(DEVICE) for theta in population.thetas]
    compiled = TritonKernel(ours.core, ours.thetas)
    active = torch.tensor([True, True, False, True], device=DEVICE)
    for t, grads in enumerate(SOME.grads):
        given = [None if g is None else g.to(DEVICE) for g in ours.grads(grads)]
        compiled(ours.thetas, given, active[:, None].repeat(1, len(given)) if t > 2 else None)
        theirs.core(theirs.thetas, given, [active.view(-1, 1, 1, 1)] * len(given) if t > 2 else None)
    for mine, expected in zip(ours.thetas, theirs.thetas, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
    for key, value in theirs.core.state_dict().items():
        torch.testing.assert_close(ours.core.state_dict()[key], value, equal_nan=True, msg=key)


def test_a_step_without_any_gradient_changes_nothing() -> None:
    params = leaves(SOME)
    optimizer = GLOBAL.build(params, total_steps=3, compile=True)
    optimizer.step()
    assert_close([p.detach().cpu().numpy() for p in params], SOME.params, 0)
    assert optimizer.state_dict()["param_groups"][0]["step"] == 1


# Launches


@pytest.mark.parametrize(("config", "passes"), [(Config(), 1), (FULL, 2), (GLOBAL, 5)], ids=["adamw", "full", "global"])
def test_a_step_is_a_launch_for_each_pass(config: Config, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that counts updates; no operations of torch."""
    launched: list[str] = []
    params = leaves(SOME)
    optimizer = config.build(params, total_steps=5, compile=True)
    feed(params, SOME.grads[1])
    optimizer.step()
    monkeypatch.setattr(triton_kernel, "launch", lambda kernels, _: launched.extend(k.__name__ for k, _ in kernels))
    optimizer.step()
    assert launched == ["count", *(f"pass_{number}" for number in range(passes))]


def test_addresses_are_sent_when_they_have_changed() -> None:
    sent = Sent(2, DEVICE)
    table = sent([1, 2])
    assert sent([1, 2]) is table
    assert sent([3, 0]).tolist() == [3, 0]
    assert table.tolist() == [1, 2], "what a kernel still reads is left alone"


def test_what_a_graph_has_captured_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that a graph fills in its replays is of no use outside, and one that it reads must not go away."""
    sent = Sent(2, DEVICE)
    before = sent([1, 2])
    monkeypatch.setattr(sent, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(sent, "_send", lambda numbers, host: torch.tensor(numbers))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert sent([1, 2]) is before
    captured = [sent([3, 4]), sent([3, 4])]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(sent, "_pinned", lambda count: torch.zeros(count, 2))
    assert captured[0] is not captured[1]
    assert not {id(sent([3, 4]))} & {id(table) for table in captured}
    kept = {id(x) for held in sent._captured for x in held}
    assert {id(table) for table in (before, *captured)} <= kept


def test_shapes_are_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another model needs no other code."""
    sources = set()
    monkeypatch.setattr(triton_kernel, "build", lambda source: sources.add(source) or triton_build.build(source))
    for size in (2, 30):
        p = nn.Parameter(torch.ones(size, size + 1, device=DEVICE))
        p.grad = torch.ones_like(p)
        FULL.build([p], total_steps=10, compile=True).step()
    assert len(sources) == 1


# Whether and how it is built


def test_who_insists_without_triton_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    triton_build.build.cache_clear()
    with pytest.raises(ConfigError, match=r"cannot be compiled: there is no Triton \(.*\), .*; install triton; pass"):
        run(FULL, SOME.first(1), compile=True)


def test_a_cache_that_cannot_be_written_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton_build, "write", full)
    triton_build.build.cache_clear()
    with pytest.raises(ConfigError, match=r"cannot be written to .*: No space left"):
        run(FULL, SOME.first(1), compile=True)


def test_a_damaged_file_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        triton_build.build.cache_clear()
        run(Config(), SOME.first(1), compile=True)
        (file,) = (tmp_path / "autoranger" / "kernels").glob("*.py")
        source = file.read_text()
        file.write_text("damaged")
    assert "def pass_0" in source
    triton_build.build.cache_clear()


def test_a_tensor_that_32_bits_cannot_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernel, "MOST", 6)
    with pytest.raises(ConfigError, match="more rows or columns than"):
        run(FULL, SOME.first(1), compile=True)


def compile_for(architecture: int, names: Sequence[str]) -> None:
    """Compiles the kernels of configs for an NVIDIA GPU, which need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    registry[Everything.id] = Everything
    configs = CONFIGS | {"everything": Config(components={Everything.id: {}})}
    for name in names:
        step = Step([configs[name]], 30, dtype=torch.float32, device=torch.device("cpu"))
        for matrix in (False, True):
            step.add(torch.ones(1, 1, 1, 4), matrix=matrix)
        source, _, passes = triton_source.print_kernels(
            schedules(step, torch.float32, rounded=False, rates=True, across=False), *[torch.float32] * 2
        )
        module = triton_build.build(source)
        types = {name: "*fp32" if name in ("kept", "partials", "parts") else "*i64" for name in triton_source.TABLES}
        types |= {"active": "*i1", **dict.fromkeys(triton_source.SIZES, "i32")}
        for kernel in ("count", *passes):
            ast = ASTSource(getattr(module, kernel), types, {})
            triton.compile(ast, target=GPUTarget("cuda", architecture, 32), options={"enable_fp_fusion": False})


def test_the_compiler_for_gpus_accepts_it(tmp_path: Path) -> None:
    """The interpreter is more lenient, so this is for real, down to machine code, in a process without it."""
    code = "from tests.test_kernel_gpu import compile_for; compile_for(90, ['ranger21', 'global sums', 'everything'])"
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


# On a GPU only

needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")


def model_and_data(config: Config, compiled: bool) -> SimpleNamespace:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(DEVICE)
    optimizer = config.build(model.parameters(), total_steps=20, compile=compiled)
    return SimpleNamespace(model=model, optimizer=optimizer, inputs=torch.randn(32, 64, device=DEVICE))


def train(on: SimpleNamespace, *, to_none: bool = True) -> None:
    on.optimizer.zero_grad(set_to_none=to_none)
    on.model(on.inputs).square().mean().backward()
    on.optimizer.step()


@needs_gpu
def test_a_step_does_not_wait_for_the_device() -> None:
    on = model_and_data(FULL, compiled=True)
    train(on)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            on.held = [p.grad for p in on.model.parameters()]  # so that the next ones lie elsewhere
            train(on)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("config", [FULL, GLOBAL], ids=["ranger21", "global sums"])
def test_a_graph_of_a_step_can_be_replayed(config: Config, to_none: bool) -> None:
    """With gradients that the graph has of its own, and with those that were there before."""
    captured, eager = model_and_data(config, compiled=True), model_and_data(config, compiled=False)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            train(captured, to_none=to_none)
    torch.cuda.current_stream().wait_stream(side)
    captured.optimizer.zero_grad(set_to_none=to_none)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train(captured, to_none=to_none)
    train(captured, to_none=to_none)  # with other gradients where they are made anew, before the graph has ever run
    for _ in range(5):
        graph.replay()
    for _ in range(9):
        train(eager)
    for ours, theirs in zip(captured.model.parameters(), eager.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

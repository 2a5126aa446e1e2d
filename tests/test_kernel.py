"""The compiled step computes what the step computes, whatever is on; where it cannot be had, nothing else changes."""

from __future__ import annotations

import copy
import io
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autoranger import Component, Config, ConfigError, Ranger21, Signals, Stage
from autoranger.components.core.component import registry
from autoranger.components.core.rows import choose, row_norm, tensor_mean
from autoranger.components.core.step import Step
from autoranger.components.kernel.cache import cache
from autoranger.components.kernel.compile import compile_step
from autoranger.components.kernel.cpp import build as building
from autoranger.components.kernel.cpp.kernel import CppKernel
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.program import Program
from autoranger.components.kernel.recording.record import Recorder, record
from autoranger.components.kernel.recording.schedule import Schedule
from autoranger.components.optimizer.layout import ParameterLayout
from tests.conftest import PROBLEM, SMALL, Problem, advance, arrays, assert_close, differ, feed
from tests.conftest import Population as Candidates
from tests.recorded import (
    CONFIGS,
    FULL,
    GLOBAL,
    NUMBERS,
    ODD,
    SPECIAL,
    Measuring,
    Peeking,
    assert_agree,
    check_program,
    gradient_of_another_type,
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
from tests.references import reference

pytestmark = [
    pytest.mark.usefixtures("compiler"),
    pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler"),
]

# Numbers


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_computes_what_the_operations_do(config: Config) -> None:
    """On everything that is awkward: single numbers, single columns, zeros, gradients that come and go."""
    assert_agree(run(config, PROBLEM, compile=True), run(config, PROBLEM, compile=False), tolerance(config))


def test_it_computes_what_the_papers_say() -> None:
    params = PROBLEM.leaves()
    advance(FULL.build(params, total_steps=PROBLEM.total_steps, compile=True), params, PROBLEM.grads)
    assert_close(arrays(params), reference(FULL)(FULL, PROBLEM.params, PROBLEM.grads, PROBLEM.total_steps))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str
)
@pytest.mark.parametrize("config", [FULL, GLOBAL, Config(**NUMBERS)], ids=["ranger21", "global sums", "adamw"])
def test_every_type_of_parameter_works(config: Config, dtype: torch.dtype, tolerance: float) -> None:
    problem = PROBLEM.without("outliers", "dead", "single column", "scalar", "large").first(6)
    assert_agree(run(config, problem, dtype, compile=True), run(config, problem, dtype, compile=False), tolerance)


@pytest.mark.parametrize("config", [FULL, GLOBAL], ids=["ranger21", "global sums"])
def test_threads_make_no_difference(config: Config) -> None:
    """Not in a single bit: sums are made row by row, whoever has the row."""
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        try:
            results.append([x.numpy() for x in run(config, PROBLEM.first(7), compile=True)])
        finally:
            torch.set_num_threads(1)
    assert not differ(results[0], results[1])
    assert not differ(results[0], results[2])


def test_groups_have_their_own_numbers() -> None:
    assert_agree(run_in_groups(compile=True), run_in_groups(compile=False), 1e-10)


def test_candidates_may_differ_in_everything() -> None:
    """Components that only some have on, numbers of their own, some that no longer train, one full of NaN."""
    configs = [FULL, GLOBAL, Config(lr=0.1), with_eight("softplus_denominator"), with_eight("adabelief_variance")]
    ours, theirs = (Candidates(configs, SMALL) for _ in range(2))
    ours.thetas[0][2], theirs.thetas[0][2] = torch.nan, torch.nan
    compiled = CppKernel(ours.core, ours.thetas)
    active = torch.tensor([True, True, False, True, True])
    for t, grads in enumerate(SMALL.grads):
        mask = active[:, None].repeat(1, len(ours.thetas)) if t > 4 else None
        compiled(ours.thetas, ours.grads(grads), mask)
        theirs.step(grads, active.view(-1, 1, 1, 1) if t > 4 else None)
    for row, expected in zip(ours.rows(), theirs.rows(), strict=True):
        assert_close(row, expected, 1e-9)
    for key, value in theirs.core.state_dict().items():
        torch.testing.assert_close(ours.core.state_dict()[key], value, equal_nan=True, msg=key)


# Any program, in any order of stores


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(program=programs(), seed=st.integers(0, 99))
def test_any_program_is_scheduled_right(program: Program, seed: int) -> None:
    check_program(program, seed, CppKernel)


@pytest.mark.parametrize("program", SPECIAL.values(), ids=SPECIAL)
def test_special_programs_are_scheduled_right(program: Program) -> None:
    check_program(program, 0, CppKernel)


@pytest.mark.parametrize(("config", "passes", "sweeps"), [(Config(), 1, 1), (FULL, 2, 1), (GLOBAL, 5, 4)])
def test_there_are_as_few_passes_as_the_sums_allow(config: Config, passes: int, sweeps: int) -> None:
    step = Step([config], 10, dtype=torch.float32, device=torch.device("cpu"))
    schedule = Schedule(record(step, True, torch.float32))
    assert (schedule.count, len(schedule.sweeps)) == (passes, sweeps)


def test_threads_may_record_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the workers of a search do: one ends in the midst of another, which must not begin to look at values."""
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(Component, register=False):
        stage = Stage.GRADIENT

        def forward(self, x: Signals) -> Signals:
            inside.set()
            assert go_on.wait(30)
            return x._replace(grad=choose(x.updates > 1, x.grad, -x.grad))

    monkeypatch.setitem(registry, Waiting.id, Waiting)
    config = Config(components={Waiting.id: {}})
    step = Step([config], None, dtype=torch.float32, device=torch.device("cpu"))
    with ThreadPoolExecutor(1) as pool:
        with Recorder((3, 5)):
            recording = pool.submit(record, step, True, torch.float32)
            assert inside.wait(30)
        go_on.set()
        assert "select" in recording.result().signature()


# What may happen to tensors between steps


@pytest.mark.parametrize("change", [in_half, gradient_of_another_type, negative_view, transposed, replaced, shared])
def test_what_happens_to_tensors_is_noticed(change: Callable[[nn.Parameter, torch.optim.Optimizer], None]) -> None:
    """Addresses are taken anew, and what a step is not compiled for is left to the operations."""
    if change is gradient_of_another_type and not hasattr(nn.Parameter, "grad_dtype"):
        pytest.skip("this torch insists on gradients of the parameter's type")
    assert_agree(trained(change, compile=True), trained(change, compile=False), 1e-5)


def test_autograd_notices_the_change_of_what_it_needs() -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = FULL.build([p], total_steps=3, compile=True)
    loss = (p * p * p).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_default_device_is_no_concern() -> None:
    params, others = SMALL.leaves(), SMALL.leaves()
    ours, theirs = FULL.build(params, total_steps=12, compile=True), FULL.build(others, total_steps=12, compile=False)
    for grads in SMALL.grads[:3]:
        feed(params, grads)
        with torch.device("meta"):
            ours.step()
        advance(theirs, others, [grads])
    assert_close(arrays(params), arrays(others))


def test_nothing_to_update_is_fine() -> None:
    p = nn.Parameter(torch.ones(0, 4))
    p.grad = torch.ones_like(p)
    FULL.build([p], total_steps=3, compile=True).step()


# Components of others


@pytest.mark.parametrize("beside", [(), ("global_norm_clipping",), ("stable_weight_decay",)], ids=str)
@pytest.mark.parametrize("cls", ODD)
def test_whatever_a_component_does_the_result_is_the_same(
    cls: type[Component], beside: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry, cls.id, cls)
    config = Config(**NUMBERS, components={name: {} for name in (cls.id, *beside)})
    assert_agree(run(config, SMALL), run(config, SMALL, compile=False), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "operation", [torch.maximum, torch.minimum, torch.remainder, torch.add, torch.div, torch.lt, torch.atan2]
)
def test_operations_are_torchs_at_the_edges(operation: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
    """Signs of zero, infinities, NaN: what is stored is what torch would store. (The last one has no rule.)"""
    ours, theirs = (operated(operation, dtype, compile=how) for how in ("auto", False))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0, equal_nan=True)


# One compilation


class Compilations:
    """Counts what is handed to the compiler."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
        self.count = 0
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        building.build_with.cache_clear()
        original = building.compile_to

        def counted(*args: Any) -> str:
            self.count += 1
            return original(*args)

        monkeypatch.setattr(building, "compile_to", counted)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Compilations]:
    yield Compilations(monkeypatch, tmp_path)
    building.build_with.cache_clear()


@pytest.mark.filterwarnings("ignore:the optimizer was built for")
def test_a_training_is_compiled_once(compilations: Compilations) -> None:
    params = SMALL.leaves()
    optimizer = FULL.build(params, total_steps=12, compile=True)
    for t, grads in enumerate(SMALL.grads):
        group = optimizer.param_groups[0]
        group["lr"], group["weight_decay"], group["betas"] = 0.1 / (t + 1), 0.01 * t, (0.9 - 0.01 * t, 0.99)
        feed(params, [None if (i + t) % 5 == 0 else g for i, g in enumerate(grads)])
        optimizer.step()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 3, dtype=torch.float64))], "lr": 1.0})
    optimizer.step()
    assert compilations.count == 1


def test_models_share_what_is_compiled(compilations: Compilations) -> None:
    """Shapes are arguments: another model needs no other code."""
    for size in (2, 3, 50):
        p = nn.Parameter(torch.ones(size, size + 1))
        p.grad = torch.ones_like(p)
        FULL.build([p], total_steps=10, compile=True).step()
    assert compilations.count == 1


def test_the_next_process_finds_it(compilations: Compilations) -> None:
    for _ in range(2):
        building.build_with.cache_clear()  # what a new process has not loaded yet
        run(FULL, SMALL.first(2), compile=True)
    assert compilations.count == 1


def test_threads_and_processes_at_once_compile_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a distributed training, and workers of a search, all begin with the same step."""
    compiler_of(monkeypatch, tmp_path, f'echo >> {tmp_path}/calls; sleep 0.2; for x; do last=$x; done; touch "$last"')
    library = tmp_path / "step.so"
    with ThreadPoolExecutor(4) as threads:
        made = [threads.submit(building.make, library, "", [*building.find_compiler()], anew=False) for _ in range(4)]
    assert [x.result() for x in made] == [""] * 4
    assert (tmp_path / "calls").read_text() == "\n"


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    building.build_with.cache_clear()
    assert_agree(run(FULL, SMALL.first(2), compile=True), run(FULL, SMALL.first(2), compile=False), 1e-9)


def test_a_damaged_library_is_made_anew(
    compilations: Compilations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(FULL, SMALL.first(2), compile=True)
    (library,) = tmp_path.rglob("*.so")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    cache().joinpath(library.name).write_bytes(b"damaged")
    building.build_with.cache_clear()
    assert_agree(run(FULL, SMALL.first(2), compile=True), run(FULL, SMALL.first(2), compile=False), 1e-9)
    assert compilations.count == 2


def test_a_folder_that_others_can_write_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "autoranger" / "kernels"
    place.mkdir(parents=True)
    place.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache() != place
    place.chmod(0o700)
    assert cache() == place
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache().is_absolute()


def test_a_user_without_a_home_has_a_cache_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert cache().is_dir()


def compiler_of(monkeypatch: pytest.MonkeyPatch, place: Path, lines: str) -> None:
    """Makes a shell script the compiler."""
    script = place / "compiler"
    script.write_text(f"#!/bin/sh\n{lines}\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    building.build_with.cache_clear()


@pytest.mark.parametrize(
    ("refused", "taken"), [("*native*|*fopenmp*", ""), ("*fopenmp*|*march*", "-mcpu=native"), ("*native*", "-fopenmp")]
)
def test_a_compiler_that_knows_few_options_will_do(
    refused: str, taken: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the machine's own instructions, threads, or both; the second process finds what it has made."""
    real = building.find_compiler()
    known = (
        f'real="$(echo "$@" | sed s/-mcpu=native//)"; echo "$*" >> {tmp_path}/commands; exec {shlex.join(real)} $real'
    )
    compiler_of(monkeypatch, tmp_path, f'case "$*" in *--version*) ;; {refused}) exit 1;; esac\n{known}')
    for _ in range(2):
        building.build_with.cache_clear()
        assert_agree(run(FULL, SMALL, compile=True), run(FULL, SMALL, compile=False), 1e-9)
    (command,) = (line for line in (tmp_path / "commands").read_text().splitlines() if "--version" not in line)
    assert [word for word in command.split() if word.startswith(("-march", "-mcpu", "-fopenmp"))] == taken.split()


def test_cxx_may_have_spaces_or_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "my compiler"
    program.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(program))
    assert building.find_compiler() == (str(program),)
    monkeypatch.setenv("CXX", f" {sys.executable} -E -s")
    assert building.find_compiler() == (sys.executable, "-E", "-s")


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++, which plays Zig's part")
def test_the_package_ziglang_is_a_compiler(
    compilations: Compilations, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only where there is no other."""
    (tmp_path / "ziglang").mkdir()
    (tmp_path / "ziglang" / "__init__.py").touch()
    (tmp_path / "ziglang" / "__main__.py").write_text(
        "import os, sys\n"
        "assert sys.argv.pop(1) == 'c++'\n"
        f"os.environ['PATH'] = {os.environ['PATH']!r}\n"
        f"os.execv({shutil.which('g++')!r}, ['g++', *sys.argv[1:]])\n"
    )
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    assert "ziglang" not in building.find_compiler()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert building.find_compiler() == (sys.executable, "-m", "ziglang", "c++")
    assert_agree(run(FULL, SMALL.first(2), compile=True), run(FULL, SMALL.first(2), compile=False), 1e-9)
    assert compilations.count == 1


def test_what_a_compiler_has_against_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler_of(monkeypatch, tmp_path, 'echo "In file included:" >&2; echo "/x.h:3: error: no bits here" >&2; exit 1')
    with pytest.raises(ConfigError, match=r"cannot be compiled: .*compiler fails \(/x\.h:3: error: no bits here\);"):
        run(FULL, SMALL, compile=True)
    assert_agree(run(FULL, SMALL), run(FULL, SMALL, compile=False), 1e-9)


@pytest.mark.skipif(not shutil.which("clang++"), reason="needs clang++")
@pytest.mark.parametrize("library", ["libstdc++", "libc++"])
def test_clang_and_its_own_library_compile_it(library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = ["clang++", f"-stdlib={library}", "-include", "cmath", "-x", "c++", "-fsyntax-only", os.devnull]
    if subprocess.run(empty, capture_output=True, check=False).returncode:
        pytest.skip(f"needs {library}")
    compiler_of(monkeypatch, tmp_path, f'exec clang++ -stdlib={library} "$@"')
    for config in (FULL, Config(components={"chebyshev_steps": {}}), Config(components={"one_cycle": {}})):
        assert_agree(run(config, SMALL, compile=True), run(config, SMALL, compile=False), 1e-9)


# Where it cannot be had


@pytest.fixture(params=[Peeking, Measuring])
def strange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setitem(registry, request.param.id, request.param)
    return Config(**NUMBERS, components={request.param.id: {}})


def test_a_component_that_cannot_be_recorded_runs_as_operations(strange: Config) -> None:
    assert_agree(run(strange, SMALL), run(strange, SMALL, compile=False), 0)


def test_who_insists_is_told_why(strange: Config) -> None:
    with pytest.raises(ConfigError, match=r"cannot be compiled: .*; pass compile=\"auto\" to do without"):
        run(strange, SMALL, compile=True)


@pytest.mark.parametrize("compiler_name", ["no-such-compiler", "false"])
def test_without_a_compiler_the_operations_run(compiler_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler_name)
    assert_agree(run(FULL, SMALL), run(FULL, SMALL, compile=False), 0)
    with pytest.raises(ConfigError, match="cannot be compiled"):
        run(FULL, SMALL, compile=True)


def test_nothing_is_compiled_where_that_is_not_wanted(compilations: Compilations) -> None:
    run(FULL, SMALL.first(1), compile=False)
    assert compilations.count == 0


def test_parameters_of_a_special_kind_run_as_operations() -> None:
    class Special(nn.Parameter):
        pass

    params = [Special(torch.ones(3, 2))]
    layout = ParameterLayout(FULL, FULL.build(params, total_steps=3).param_groups, {}, False)
    assert compile_step(layout.core, params, "auto") is None


# Beside everything else


def test_both_ways_continue_each_other() -> None:
    """State is the same, so a training may be continued on a machine without a compiler, and back."""
    straight = SMALL.leaves()
    advance(FULL.build(straight, total_steps=12, compile=False), straight, SMALL.grads)
    params = SMALL.leaves()
    optimizer = FULL.build(params, total_steps=12, compile=True)
    for t, grads in enumerate(SMALL.grads):
        if t % 3 == 2:
            saved = io.BytesIO()
            torch.save(optimizer.state_dict(), saved)
            saved.seek(0)
            optimizer = FULL.build(params, total_steps=12, compile=bool(t % 2))
            optimizer.load_state_dict(torch.load(saved, weights_only=True))
        advance(optimizer, params, [grads])
    assert_close(arrays(params), arrays(straight))


def test_another_wish_is_refused() -> None:
    with pytest.raises(ConfigError, match="compile is 'yes', but must be True, False or"):
        FULL.build(SMALL.leaves(), total_steps=12, compile="yes")  # type: ignore[arg-type]


def test_a_copy_of_an_optimizer_keeps_the_wish() -> None:
    optimizer = Ranger21(SMALL.leaves(), total_steps=12, compile=False)
    assert copy.deepcopy(optimizer).compile is False


def test_means_and_norms_are_of_whole_rows_however_long() -> None:
    """Longer than the blocks in which sums are made."""
    shape = (2, 9001)
    rng = np.random.default_rng(0)
    problem = Problem([rng.normal(size=shape)], [[rng.normal(size=shape)] for _ in range(3)], 3)
    assert_agree(run(FULL, problem, compile=True), run(FULL, problem, compile=False), 1e-12)
    theta = torch.tensor(problem.params[0])[None, None]
    assert row_norm(theta).shape == (1, 1, 2, 1)
    assert tensor_mean(theta).shape == (1, 1, 1, 1)


def test_what_has_no_rule_is_said() -> None:
    class Sorting(Component, register=False):
        stage = Stage.GRADIENT

        def forward(self, x: Signals) -> Signals:
            return x._replace(grad=x.grad.sort(dim=-1).values)

    step = Step([Config()], None, dtype=torch.float32, device=torch.device("cpu"))
    link = type(step.chains[0][0])(Sorting([{}], torch.float32, torch.device("cpu")), gated=False)
    step.chains, step.sweeps, step.schedules = [[link]], [[[link]]], [[]]
    with pytest.raises(UntraceableError, match="sort"):
        record(step, True, torch.float32)

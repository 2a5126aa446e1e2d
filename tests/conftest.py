"""What the tests share: a model's worth of awkward parameters, and ways to run the project's optimizers over them."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoranger import Config, cli
from autoranger.components.core.rows import is_matrix, row_shape
from autoranger.components.core.step import Step
from autoranger.components.optimizer import layout
from autoranger.components.optimizer.stacking import STACKED_BELOW
from autoranger.search.population.memory import keep_freed_memory

Array = NDArray[np.float64]

torch.set_num_threads(1)
keep_freed_memory()  # as the command line does

# Kernels that tests compile stay out of the user's cache, and are there for the next run.
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")


def pytest_collection_finish() -> None:
    """Leaves what has been imported to itself: looking for a parameter's layer goes through all other objects."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # some libraries complain at the end of objects that nobody has taken away


@pytest.fixture
def compiler() -> None:
    """Steps are compiled where they can be, as they are for users."""


@pytest.fixture
def interpreter() -> None:
    """Steps that are not compiled run as recorded, as they do for users."""


@pytest.fixture
def autoranger(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the command line with these words: status, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["autoranger", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err  # type: ignore[return-value]

    return run


@pytest.fixture(autouse=True)
def operations_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps run as the components say unless a test asks for more; test_kernel.py and others prove that all agree."""
    if "compiler" not in request.fixturenames:
        monkeypatch.setenv("CXX", "none-in-this-test")
    if "interpreter" not in request.fixturenames:
        monkeypatch.setattr(layout, "interpreter", lambda *_: None)


@pytest.fixture(params=["operations", "interpreter", "compiled"])
def way(request: pytest.FixtureRequest, compiler: None, interpreter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to run a step on a CPU."""
    if request.param != "compiled":
        monkeypatch.setenv("CXX", "none-in-this-test")
    elif not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("needs a C++ compiler")
    if request.param == "operations":
        monkeypatch.setattr(layout, "interpreter", lambda *_: None)


STEPS = 30

SHAPES: dict[str, tuple[int, ...]] = {
    "conv": (4, 3, 3, 3),
    "another conv": (4, 3, 3, 3),
    "matrix": (5, 7),
    "outliers": (5, 7),
    "zero row": (5, 7),
    "sometimes": (5, 7),
    "single row": (1, 9),
    "single column": (6, 1),
    "vector": (7,),
    "another vector": (7,),
    "zero bias": (5,),
    "scalar": (),
    "dead": (3, 4),
    "never": (3, 4),
    "large": (2, STACKED_BELOW // 2 + 1),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """Initial parameters, and for each step the gradient of each one, or None."""

    params: list[Array]
    grads: list[list[Array | None]]
    total_steps: int = STEPS

    def part(self, *names: str) -> Problem:
        """The problem with these parameters only."""
        index = [list(SHAPES).index(name) for name in names]
        grads = [[step[i] for i in index] for step in self.grads]
        return Problem([self.params[i] for i in index], grads, self.total_steps)

    def without(self, *names: str) -> Problem:
        """The problem without these parameters."""
        return self.part(*(name for name in SHAPES if name not in names))

    def first(self, steps: int) -> Problem:
        """The same in fewer steps."""
        return Problem(self.params, self.grads[:steps], steps)

    def leaves(self, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
        """The parameters as torch's."""
        return [nn.Parameter(torch.tensor(p, dtype=dtype)) for p in self.params]


def make_problem() -> Problem:
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) * 10 ** rng.uniform(-1, 0.5) for name, shape in SHAPES.items()}
    params["zero bias"] *= 0
    params["zero row"][2] = 0
    grads: list[list[Array | None]] = []
    for t in range(STEPS):
        g = {name: rng.normal(size=shape) * 10 ** rng.uniform(-2, 0) for name, shape in SHAPES.items()}
        g["outliers"][t % 5] *= 1000
        g["dead"] *= 0
        missing = (
            ["never"] + ["sometimes"] * (t % 4 == 0) + ["scalar"] * (t % 7 == 3) + ["conv", "another conv"] * (t == 9)
        )
        grads.append([None if name in missing else value for name, value in g.items()])
    return Problem([np.asarray(p) for p in params.values()], grads)


PROBLEM = make_problem()
"""30 steps of everything; what follows is enough, and quicker, for most questions."""

MEDIUM = PROBLEM.without("large")
SMALL = MEDIUM.first(12)
TINY = SMALL.part("conv", "zero row", "sometimes", "zero bias")


def feed(params: Sequence[Tensor], grads: Sequence[Array | None]) -> None:
    """Sets `p.grad`."""
    for p, grad in zip(params, grads, strict=True):
        p.grad = None if grad is None else torch.tensor(grad, dtype=p.dtype)


def advance(
    optimizer: torch.optim.Optimizer, params: Sequence[Tensor], grads: Sequence[Sequence[Array | None]]
) -> None:
    """One step of the optimizer for each step of gradients."""
    for step_grads in grads:
        feed(params, step_grads)
        optimizer.step()


def arrays(params: Sequence[Tensor]) -> list[Array]:
    return [p.detach().double().numpy().copy() for p in params]


def follow(config: Config, problem: Problem, dtype: torch.dtype = torch.float64) -> list[Array]:
    """The parameters to evaluate with after the problem's steps, by the project's optimizer."""
    params = problem.leaves(dtype)
    optimizer = config.build(params, total_steps=problem.total_steps)
    advance(optimizer, params, problem.grads)
    optimizer.eval()
    return arrays(params)


def populate(configs: Sequence[Config], problem: Problem, dtype: torch.dtype = torch.float64) -> list[list[Array]]:
    """For each candidate the parameters after the problem's steps, all candidates at once."""
    population = Population(configs, problem, dtype)
    for grads in problem.grads:
        population.step(grads)
    return population.rows()


class Population:
    """K candidates with the same initial parameters and gradients in one `Step`; one stack for each parameter."""

    def __init__(self, configs: Sequence[Config], problem: Problem, dtype: torch.dtype = torch.float64) -> None:
        self.core = Step(configs, problem.total_steps, dtype=dtype, device=torch.device("cpu"))
        self.shapes = [p.shape for p in problem.params]
        self.thetas = [self.spread(p, len(configs), dtype) for p in problem.params]
        for theta, shape in zip(self.thetas, self.shapes, strict=True):
            self.core.add(theta, matrix=is_matrix(torch.Size(shape)))

    @staticmethod
    def spread(x: Array, candidates: int, dtype: torch.dtype) -> Tensor:
        """`[K, 1, R, C]`: the same for every candidate."""
        return torch.tensor(x, dtype=dtype).view(1, 1, *row_shape(torch.Size(x.shape))).repeat(candidates, 1, 1, 1)

    def grads(self, grads: Sequence[Array | None]) -> list[Tensor | None]:
        """The gradients of one step for every candidate."""
        return [
            None if grad is None else self.spread(grad, len(theta), theta.dtype)
            for grad, theta in zip(grads, self.thetas, strict=True)
        ]

    def step(self, grads: Sequence[Array | None], active: Tensor | None = None) -> None:
        self.core(self.thetas, self.grads(grads), None if active is None else [active] * len(self.thetas))

    def rows(self) -> list[list[Array]]:
        """The parameters of each candidate, those to evaluate with."""
        stacked = [theta.double().numpy() for theta in self.core.evaluated(self.thetas)]
        return [
            [theta[k].reshape(shape).copy() for theta, shape in zip(stacked, self.shapes, strict=True)]
            for k in range(len(stacked[0]))
        ]


def assert_close(actual: Sequence[Array], expected: Sequence[Array], tolerance: float = 1e-9) -> None:
    """Every parameter agrees to `tolerance`, relative or absolute."""
    for i, (x, y) in enumerate(zip(actual, expected, strict=True)):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=f"parameter {i}")


def differ(one: Sequence[Array], other: Sequence[Array]) -> bool:
    """Whether any parameter differs in any bit."""
    return any(not np.array_equal(x, y, equal_nan=True) for x, y in zip(one, other, strict=True))


class Transfers(TorchDispatchMode):
    """Records operators that have a tensor on the CPU: with parameters elsewhere, each is a transfer that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        if any(isinstance(x, Tensor) and x.device.type == "cpu" for x in tree_leaves((args, kwargs, result))):
            self.found.append(str(func))
        return result


class Uploads(TorchFunctionMode):
    """Records calls that make a tensor elsewhere from the host's numbers, which a dispatch mode does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and result.device.type != "cpu":
            self.found.append(func.__name__)
        return result

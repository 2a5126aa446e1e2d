"""What the tests of recorded steps share: configs, random programs, components that are awkward in some way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from autoranger import Component, Config, Signals, Stage
from autoranger.components.core.chain import Link
from autoranger.components.core.component import registry
from autoranger.components.core.rows import row_mean, tensor_mean
from autoranger.components.core.step import Step
from autoranger.components.kernel.recording import recording
from autoranger.components.kernel.recording.program import Level, Node, Program
from autoranger.components.presets import PRESETS, RANGER21
from tests.conftest import SMALL, Problem, advance, feed

NUMBERS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}
FULL = Config(**NUMBERS, components=dict.fromkeys(RANGER21, True))
GLOBAL = Config(**NUMBERS, components={"stable_weight_decay": {"scope": "global"}, "global_norm_clipping": {}})


def with_eight(name: str) -> Config:
    """A component and those of Ranger21 that go with it."""
    eight = [other for other in RANGER21 if not registry[name].excludes(registry[other])]
    return Config(**NUMBERS, components=dict.fromkeys([name, *eight], True))


CONFIGS = {
    "adamw": Config(**NUMBERS),
    "ranger21": FULL,
    "global sums": GLOBAL,
    **{name: Config(**NUMBERS, components={name: {}}) for name in registry},
    **{f"{name} and the eight": with_eight(name) for name in registry if name not in RANGER21},
    **{f"preset {name}": Config.preset(name, lr=1e-2) for name in PRESETS},
}


def run(config: Config, problem: Problem, dtype: torch.dtype = torch.float64, **how: Any) -> list[Tensor]:
    """The parameters and all state after the problem's steps."""
    params = problem.leaves(dtype)
    optimizer = config.build(params, total_steps=problem.total_steps, **how)
    advance(optimizer, params, problem.grads)
    state = [value for p in params for _, value in sorted(optimizer.state.get(p, {}).items())]
    return [p.detach().double() for p in params] + [value.double() for value in state]


def tolerance(config: Config) -> float:
    """How near two computations of a step are in double precision.

    An eigenvector of a small eigenvalue beside a large one is less exact than the matrix.
    """
    return 1e-6 if "soap" in config.components else 1e-9


def assert_agree(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> None:
    for i, (x, y) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m, i=i: f"{i}: {m}")


def run_in_groups(**how: Any) -> list[Tensor]:
    """The parameters after steps with two parameter groups, each with numbers of its own, one of which change."""
    params = SMALL.leaves()
    groups = [{"params": params[:5], "lr": 0.03}, {"params": params[5:], "betas": (0.5, 0.9), "total_steps": 20}]
    optimizer = FULL.build(groups, total_steps=12, **how)
    for t, grads in enumerate(SMALL.grads):
        optimizer.param_groups[1]["lr"] = 0.02 / (t + 1)
        feed(params, grads)
        optimizer.step()
    return [p.detach() for p in params]


# Random programs

UNARY, BINARY = ("neg", "abs", "floor"), ("add", "sub", "mul", "maximum", "minimum")


def evaluate(program: Program, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a program stores, from all inputs as they were."""
    functions = {"neg": np.negative, "abs": np.abs, "floor": np.floor, "add": np.add, "sub": np.subtract}
    functions |= {"mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum, "select": np.where}
    functions |= {"gt": np.greater, "row_sum": lambda x: x.sum(-1, keepdims=True)}
    functions |= {"tensor_sum": lambda x: x.sum((-2, -1), keepdims=True)}
    known: dict[Any, Any] = {}

    def value(node: Any) -> Any:
        if not hasattr(node, "op"):
            return node
        if node not in known:
            args = [value(a) for a in node.args]
            known[node] = inputs[node.name] if node.op == "input" else functions[node.op](*args)
        return known[node]

    return {target.name: np.broadcast_to(value(v), inputs[target.name].shape) for target, v in program.stores.items()}


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A random program over θ, a gradient and three state tensors, of which any may be stored into any."""
    program = Program()
    names = ["theta", "grad", "state a.x", "state a.y", "state a.z"]
    values: list[Any] = [program.input(name, Level.ELEMENT) for name in names]
    for _ in range(draw(st.integers(3, 14))):
        pick = lambda: values[draw(st.integers(0, len(values) - 1))]  # noqa: E731
        kind = draw(st.sampled_from(["unary", "binary", "binary", "select", "skip", "row", "tensor"]))
        if kind == "unary":
            values.append(program.make(draw(st.sampled_from(UNARY)), pick()))
        elif kind == "binary":
            values.append(program.make(draw(st.sampled_from(BINARY)), pick(), pick()))
        elif kind == "select":
            values.append(program.make("select", program.make("gt", pick(), pick()), pick(), pick()))
        elif kind == "skip":  # a choice whose outcome is known for whole tensors: there has been one update
            early = program.make("gt", draw(st.sampled_from([0.5, 1.5])), program.input("updates", Level.SCALAR))
            values.append(program.make("select", early, pick(), pick()))
        else:
            element = next(v for v in [pick(), *values] if v.level == Level.ELEMENT)
            total = program.make("mul", program.make("row_sum", element), 0.125)
            values.append(total if kind == "row" else program.make("mul", program.make("tensor_sum", total), 0.125))
    elements = [v for v in values if v.level == Level.ELEMENT]
    for target in values[:1] + values[2:5]:
        chosen = elements[draw(st.integers(0, len(elements) - 1))]
        if chosen is not target:
            program.stores[target] = chosen
    return program


def shared_product(program: Program, inputs: Mapping[str, Node]) -> None:
    """A product that is part of a sum, and needed otherwise, too."""
    product = program.make("mul", inputs["theta"], inputs["grad"])
    program.stores[inputs["x"]] = program.make("add", inputs["y"], product)
    program.stores[inputs["z"]] = product


def stored_truth(program: Program, inputs: Mapping[str, Node]) -> None:
    """A truth value that is stored as a number, and read by a later pass."""
    larger = program.make("gt", inputs["theta"], inputs["grad"])
    mean = program.make("mul", program.make("tensor_sum", program.make("row_sum", inputs["x"])), 0.125)
    program.stores[inputs["x"]] = larger
    program.stores[inputs["y"]] = program.make("select", larger, mean, inputs["theta"])


def kept_truth(program: Program, inputs: Mapping[str, Node]) -> None:
    """A truth value of each row that a later pass needs."""
    larger = program.make("gt", program.make("row_sum", inputs["theta"]), 0.0)
    mean = program.make("mul", program.make("tensor_sum", program.make("row_sum", inputs["x"])), 0.125)
    program.stores[inputs["y"]] = program.make("select", larger, mean, inputs["grad"])


def swap(program: Program, inputs: Mapping[str, Node]) -> None:
    """Three tensors that change places."""
    program.stores |= {inputs["x"]: inputs["y"], inputs["y"]: inputs["z"], inputs["z"]: inputs["x"]}


def special(build: Callable[[Program, Mapping[str, Node]], None]) -> Program:
    """A program over θ, a gradient and three state tensors."""
    program = Program()
    names = {"theta": "theta", "grad": "grad", "x": "state a.x", "y": "state a.y", "z": "state a.z"}
    build(program, {short: program.input(name, Level.ELEMENT) for short, name in names.items()})
    return program


SPECIAL = {build.__name__: special(build) for build in (shared_product, stored_truth, kept_truth, swap)}
"""Programs that chance seldom finds."""


class Bare(Step):
    """A step without components, to hold the state of a random program."""

    class Holder(Component, register=False):
        stage = Stage.WEIGHTS
        state = dict.fromkeys("xyz", torch.zeros_like)

    def __init__(self) -> None:
        super().__init__([Config()], None, dtype=torch.float64, device=torch.device("cpu"))
        holder = self.Holder([{}], torch.float64, torch.device("cpu"))
        holder.id = "a"  # type: ignore[misc]
        self.chains = [[Link(holder, gated=False)]]


def check_program(
    program: Program, seed: int, make: Callable[[Step, list[Tensor]], Callable[..., None]], device: str = "cpu"
) -> None:
    """Every store is of the old values, however the passes overwrite them.

    Everything consists of whole numbers and factors of ⅛: sums are exact, in whatever order.
    """
    rng = np.random.default_rng(seed)
    inputs = {
        name: rng.integers(-4, 5, (3, 5)).astype(float) for name in ("theta", "grad", *map("state a.{}".format, "xyz"))
    }
    theta, grad = (torch.tensor(inputs[name], device=device).view(1, 1, 3, 5) for name in ("theta", "grad"))
    step = Bare().to(device)
    stack = step.add(theta, matrix=True)
    for name, buffer in stack.named_state().items():
        buffer.copy_(torch.tensor(inputs[f"state {name}"]).view_as(buffer))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "program_of", lambda *_: program)
        make(step, [theta])([theta], [grad])
    after = {"theta": theta} | {f"state {name}": buffer for name, buffer in stack.named_state().items()}
    for name, value in evaluate(program, inputs | {"updates": np.ones((1, 1))}).items():
        found = after[name].view(3, 5).cpu().numpy()
        np.testing.assert_allclose(found, value, rtol=1e-12, err_msg=program.signature())


# What may happen to tensors between steps


def trained(change: Callable[[nn.Parameter, torch.optim.Optimizer], None], **how: Any) -> list[Tensor]:
    """A matrix and its state after three steps, with a change before the last one."""
    p = nn.Parameter(torch.linspace(-1, 1, 64 * 50).view(64, 50))
    optimizer = FULL.build([p], total_steps=10, **how)
    for t in range(3):
        p.grad = torch.full_like(p, 0.1 * (t + 1)) * torch.arange(50)
        if t == 2:
            change(p, optimizer)
        optimizer.step()
    return [p.detach().double(), *(value.double() for _, value in sorted(optimizer.state[p].items()))]


def in_half(p: nn.Parameter, _: object) -> None:
    p.data, p.grad = p.data.half(), None
    p.grad = torch.ones_like(p)


def gradient_of_another_type(p: nn.Parameter, _: object) -> None:
    p.grad = None
    p.grad_dtype = None
    p.grad = torch.ones(p.shape, dtype=torch.bfloat16)


def negative_view(p: nn.Parameter, _: object) -> None:
    p.grad = torch._neg_view(torch.ones_like(p))


def transposed(p: nn.Parameter, _: object) -> None:
    p.data = p.data.t().contiguous().t()


def replaced(p: nn.Parameter, _: object) -> None:
    p.data = p.data.clone() * 2


def shared(p: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    for value in optimizer.state[p].values():
        value.untyped_storage()._share_filename_cpu_()


# Components of others


class Counting(Component, register=False):
    """Keeps state of another type than the parameters."""

    stage = Stage.GRADIENT
    state = {"seen": lambda theta: torch.zeros_like(theta, dtype=torch.uint8)}

    def forward(self, x: Signals) -> Signals:
        return x._replace(grad=x.grad * 2, state={"seen": x.state["seen"] + 1})


class Rounding(Component, register=False):
    """Goes through whole numbers."""

    stage = Stage.GRADIENT

    def forward(self, x: Signals) -> Signals:
        return x._replace(grad=x.grad + (x.grad * 7).to(torch.int64).to(x.grad.dtype))


class Masking(Component, register=False):
    """Calculates with truth values."""

    stage = Stage.GRADIENT

    def forward(self, x: Signals) -> Signals:
        positive, negative = ((y > 0).to(x.grad.dtype) for y in (x.grad, -x.grad))
        return x._replace(grad=x.grad * positive / (positive + negative + negative))


class Scalar(Component, register=False):
    """A rate that is the same for everybody."""

    stage = Stage.RATE

    def forward(self, x: Signals) -> Signals:
        return x._replace(rate=torch.tensor(0.5, dtype=torch.float32))


class Missing(Component, register=False):
    """Puts NaN where the gradient is small."""

    stage = Stage.GRADIENT

    def forward(self, x: Signals) -> Signals:
        return x._replace(grad=torch.where(x.grad.abs() < 1e-2, torch.nan, x.grad))


class MatricesOnly(Component, register=False):
    """Reads a sum over all tensors for some of them only."""

    stage = Stage.GRADIENT
    collective = True

    def collect(self, x: Signals) -> Sequence[Tensor]:
        return (tensor_mean(x.grad * x.grad),)

    def forward(self, x: Signals) -> Signals:
        return x._replace(grad=x.grad / x.collected[0]) if x.matrix else x


class Storing(Component, register=False):
    """Stores a choice that is needed again once a sum over the tensor is known, when a branch of it has changed."""

    stage = Stage.GRADIENT
    state = {"chosen": torch.zeros_like, "other": torch.ones_like}

    def forward(self, x: Signals) -> Signals:
        chosen = torch.where(x.updates % 2 == 0, x.state["other"], x.grad)
        scale = tensor_mean(x.grad * x.grad)
        return x._replace(grad=chosen * scale, state={"chosen": chosen, "other": x.grad * 2})


class Keeping(Component, register=False):
    """Keeps a choice between rows' values."""

    stage = Stage.GRADIENT

    def forward(self, x: Signals) -> Signals:
        chosen = torch.where(x.updates % 2 == 0, 1.0, row_mean(x.grad))
        return x._replace(grad=x.grad * chosen * tensor_mean(x.grad * x.grad))


class Twice(Component, register=False):
    """Needs the parameters and its state as they were, after it has said what becomes of them."""

    stage = Stage.GRADIENT
    state = {"before": torch.clone, "mean": torch.zeros_like}

    def forward(self, x: Signals) -> Signals:
        mean = torch.lerp(x.state["mean"], x.grad, 0.3)
        grad = mean - x.state["mean"] + (x.theta - x.state["before"])
        return x._replace(grad=grad, state={"before": x.theta, "mean": mean})


class Nesting(Component, register=False):
    """Chooses by choices between truth values."""

    stage = Stage.GRADIENT

    def forward(self, x: Signals) -> Signals:
        either = torch.where(x.theta > 0, x.grad > 0.1, x.grad < -0.1)
        return x._replace(grad=torch.where(either, x.grad, -0.5 * x.grad))


class Flags(Component, register=False):
    """Has truth values as state, and calculates with them, also as with numbers."""

    stage = Stage.GRADIENT
    state = {"seen": lambda theta: torch.zeros_like(theta, dtype=torch.bool)}

    def forward(self, x: Signals) -> Signals:
        seen, large, positive = x.state["seen"], x.grad.abs() > 0.1, x.grad > 0
        grad = x.grad * (1 - 0.5 * seen) * torch.maximum(large, positive) + large * positive * x.theta
        return x._replace(grad=grad, state={"seen": large})


class Coarse(Component, register=False):
    """Keeps state of a lower type, which rounds it when it is stored and not before."""

    stage = Stage.GRADIENT
    state = {"sum": lambda theta: torch.zeros_like(theta, dtype=torch.bfloat16)}

    def forward(self, x: Signals) -> Signals:
        added = x.state["sum"] + x.grad
        return x._replace(grad=added * (1 + 0 * tensor_mean(added)), state={"sum": added})


class Unrecordable(Component, register=False):
    """A schedule that calls what has no rule."""

    stage = Stage.RATE

    def forward(self, x: Signals) -> Signals:
        return x._replace(rate=x.rate * (1 + torch.atan2(x.step, x.total + 1)))


ODD = (Counting, Rounding, Masking, Scalar, Missing, MatricesOnly)
ODD += (Storing, Keeping, Twice, Nesting, Flags, Coarse, Unrecordable)
"""Components that are awkward in some way, and have to work all the same."""


class Everything(Component, register=False):
    """Calls each operation that there is."""

    stage = Stage.GRADIENT

    def forward(self, x: Signals) -> Signals:
        g, some = x.grad, x.grad.abs() + 0.5
        either, both = (g > 0.1) | ~(g >= -0.1), (g < 0.3) & (g <= 0.2) & (g != 0)
        grad = some.exp() + torch.expm1(-some) + some.log() + torch.log1p(some) + g.cos() - g.sin() + g.tanh()
        grad = grad * some**1.7 + some.rsqrt() + some.sqrt() / 3 + g.sign() - (3 * g).floor() + g % 0.3 + g % -0.3
        grad = grad + torch.where(either, g, torch.inf).clamp(-0.2, 0.3) + torch.where(both == either, 1.0, -g)
        return x._replace(grad=torch.lerp(grad, either.to(g.dtype), 0.7) + torch.nn.functional.softplus(g))


class Peeking(Component, register=False):
    """Decides by values, which nothing recorded could repeat."""

    stage = Stage.GRADIENT

    def forward(self, x: Signals) -> Signals:
        return x._replace(grad=x.grad * 2) if float(x.grad.sum()) > 0 else x


class Measuring(Component, register=False):
    """Computes with a shape, which differs between tensors."""

    stage = Stage.GRADIENT

    def forward(self, x: Signals) -> Signals:
        return x._replace(grad=x.grad * x.grad.shape[-1])


EDGES = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 1e-310, 1e300, torch.inf, -torch.inf, torch.nan])


def operated(
    operation: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, device: str = "cpu", **how: Any
) -> Tensor:
    """What an optimizer stores that puts all edges of one operand with all of another through an operation."""

    class Operating(Component, register=False):
        stage = Stage.WEIGHTS

        def forward(self, x: Signals) -> Signals:
            return x._replace(theta=operation(x.theta, x.grad).to(x.theta.dtype))

    p = nn.Parameter(EDGES.double().repeat_interleave(len(EDGES)).view(11, 11).to(device, dtype))
    p.grad = EDGES.double().repeat(len(EDGES)).view(11, 11).to(device, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry, Operating.id, Operating)
        # A rate of zero leaves θ + 0·u, which spoils infinities: so no update at all.
        optimizer = Config(lr=1e-3, components={Operating.id: {}, "sgd_momentum": {}}).build([p], **how)
        optimizer.step()
    return p.detach().double()

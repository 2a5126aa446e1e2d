"""Against other people's code: torch.optim, and timm and pytorch_optimizer where their rule is the paper's.

Where another implementation deviates from the paper, the deviation is named, and switched off or made harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from autoranger import Config
from tests.conftest import PROBLEM, Array, Problem, advance, arrays, assert_close, feed

pytorch_optimizer = pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed")


def timm_module(path: str) -> Any:
    """A module of timm by its file: `import timm` would load torchvision and all of its models."""
    package = find_spec("timm")
    if package is None or not package.submodule_search_locations:
        pytest.skip("timm is not installed")
    spec = spec_from_file_location(Path(path).stem, Path(package.submodule_search_locations[0]) / path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NUMBERS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}
T = PROBLEM.total_steps

TINY = PROBLEM.part("conv", "matrix", "vector")
# Parameters that always have a gradient: the others count steps for a whole group, torch and autoranger for each one.
ALWAYS = PROBLEM.without("sometimes", "scalar", "conv", "another conv", "never")
# Others centre rows of one number, too, which then never move.
CENTRED = PROBLEM.without("single column")
# Gradients that are never zero: where others leave out ε, or the test sets it to zero, 0/0 is NaN.
NONZERO = PROBLEM.part("matrix", "outliers", "zero row", "single row", "vector", "another vector", "zero bias", "large")

Change = Callable[[list[nn.Parameter]], None]


def ours(problem: Problem, eps: float = 1e-8, **components: Any) -> list[Array]:
    params = problem.leaves()
    advance(Config(**NUMBERS, eps=eps, components=components).build(params, T), params, problem.grads)
    return arrays(params)


def theirs(
    problem: Problem, build: Callable[[list[nn.Parameter]], Optimizer], change: Change = lambda params: None
) -> list[Array]:
    """Trained by another optimizer, after `change` has changed the parameters' gradients."""
    params = problem.leaves()
    optimizer = build(params)
    for grads in problem.grads:
        feed(params, grads)
        change(params)
        optimizer.step()
    return arrays(params)


def adamw(params: list[nn.Parameter]) -> Optimizer:
    return AdamW(params, **NUMBERS)


@pytest.mark.parametrize("how", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("eps", [1e-8, 1e-3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_all_off_is_adamw(how: dict[str, bool], eps: float, dtype: torch.dtype, tolerance: float) -> None:
    params, others = PROBLEM.leaves(dtype), PROBLEM.leaves(dtype)
    advance(Config(**NUMBERS, eps=eps).build(params), params, PROBLEM.grads)
    advance(AdamW(others, **NUMBERS, eps=eps, **how), others, PROBLEM.grads)
    assert_close(arrays(params), arrays(others), tolerance)


def test_rounding_errors_of_float32_do_not_add_up() -> None:
    """1 − β2 = 0.001 and 1 − ηλ = 0.99999 are far from exact in float32; torch in float64 knows better."""
    problem = PROBLEM.part("matrix")
    single, double = problem.leaves(torch.float32), problem.leaves()
    optimizer, exact = Config.preset("adamw").build(single), AdamW(double)
    for step_grads in problem.grads * 30:
        advance(optimizer, single, [step_grads])
        advance(exact, double, [step_grads])
    assert_close(arrays(single), arrays(double), 1e-5)


@pytest.mark.parametrize(("clip", "eps"), [(0.01, 1e-3), (0.1, 0.5), (1e-3, 1e-2)])
@pytest.mark.parametrize("library", ["timm", "pytorch_optimizer"])
def test_adaptive_gradient_clipping(library: str, clip: float, eps: float) -> None:
    """Both bound the gradient's norm from below by 1e-6; the gradients here are larger, or zero, which stays zero.

    For tensors of three dimensions pytorch_optimizer has another idea of a row; there are none here.
    """

    def clip_all(params: list[nn.Parameter]) -> None:
        if library == "timm":
            timm_agc.adaptive_clip_grad(params, clip_factor=clip, eps=eps)
            return
        for p in params:
            if p.grad is not None:
                p.grad = pytorch_optimizer.optimizer.agc(p.detach(), p.grad, agc_eps=eps, agc_clip_val=clip)

    timm_agc = timm_module("utils/agc.py") if library == "timm" else None
    mine = ours(PROBLEM, adaptive_gradient_clipping={"clip": clip, "eps": eps})
    assert_close(mine, theirs(PROBLEM, adamw, clip_all))


def test_gradient_centralization() -> None:
    def centralize(params: list[nn.Parameter]) -> None:
        for p in params:
            if p.grad is not None:
                pytorch_optimizer.centralize_gradient(p.grad)

    assert_close(ours(CENTRED, gradient_centralization=True), theirs(CENTRED, adamw, centralize))


@pytest.mark.parametrize("beta0", [1.0, 0.9, 0.3])
def test_positive_negative_momentum_is_adapnm(beta0: float) -> None:
    """pytorch_optimizer divides ε by √(1 − β2^t), and adds 1e-15 to v: here ε is zero and v is large."""

    def adapnm(params: list[nn.Parameter]) -> Optimizer:
        betas = (*NUMBERS["betas"], beta0)
        return pytorch_optimizer.AdaPNM(params, **NUMBERS | {"betas": betas}, eps=0.0, ams_bound=True)

    grads = [[g if g is None else g * 1e3 for g in step_grads] for step_grads in NONZERO.grads]
    problem = Problem(NONZERO.params, grads, T)
    mine = ours(problem, eps=0.0, positive_negative_momentum={"beta0": beta0})
    assert_close(mine, theirs(problem, adapnm))


def test_stable_weight_decay_over_all_parameters_is_adams() -> None:
    """pytorch_optimizer, as the authors' own code, takes the mean over all parameters, and adds ε to its root."""

    def adams(params: list[nn.Parameter]) -> Optimizer:
        return pytorch_optimizer.AdamS(params, **NUMBERS, eps=0.0)

    assert_close(ours(NONZERO, eps=0.0, stable_weight_decay={"scope": "global"}), theirs(NONZERO, adams))


def test_stable_weight_decay_of_each_tensor_is_adams_for_each_tensor() -> None:
    mine = ours(NONZERO, eps=0.0, stable_weight_decay={"scope": "tensor"})
    for i, p in enumerate(NONZERO.params):
        alone = Problem([p], [[grads[i]] for grads in NONZERO.grads], T)
        other = theirs(alone, lambda params: pytorch_optimizer.AdamS(params, **NUMBERS, eps=0.0))
        assert_close([mine[i]], other)


@pytest.mark.parametrize(("k", "alpha"), [(5, 0.5), (6, 0.8), (1, 0.3)])
def test_lookahead_is_pytorch_optimizers(k: int, alpha: float) -> None:
    mine = ours(ALWAYS, lookahead={"k": k, "alpha": alpha})
    other = theirs(ALWAYS, lambda params: pytorch_optimizer.Lookahead(adamw(params), k=k, alpha=alpha))
    assert_close(mine, other)


@pytest.mark.parametrize(("k", "alpha"), [(5, 0.5), (6, 0.8)])
def test_lookahead_is_timms(k: int, alpha: float) -> None:
    """timm starts the slow weights at what the first k steps lead to; here they are given the paper's start."""
    params = ALWAYS.leaves()
    start = [p.detach().clone() for p in params]
    optimizer = timm_module("optim/lookahead.py").Lookahead(adamw(params), k=k, alpha=alpha)
    for t, grads in enumerate(ALWAYS.grads):
        advance(optimizer, params, [grads])
        if t == 0:
            for p, slow in zip(params, start, strict=True):
                optimizer._base_optimizer.state[p]["lookahead_slow_buff"] = slow
    assert_close(ours(ALWAYS, lookahead={"k": k, "alpha": alpha}), arrays(params))


def warmup(t: int, total: int, fraction: float) -> float:
    return min(1, max((1 - NUMBERS["betas"][1]) * t / 2, t / (fraction * total)))


def warmdown(t: int, total: int, fraction: float) -> float:
    return min(1, (total - t) / (fraction * total))


@pytest.mark.parametrize("total", [T, T + 2, 1000])
@pytest.mark.parametrize(
    ("components", "rate"),
    [
        ({"linear_warmup": True}, lambda t, total: warmup(t, total, 0.22)),
        ({"linear_warmup": {"fraction": 1.0}}, lambda t, total: warmup(t, total, 1.0)),
        ({"explore_exploit": True}, lambda t, total: warmdown(t, total, 0.28)),
        ({"explore_exploit": {"fraction": 1.0}}, lambda t, total: warmdown(t, total, 1.0)),
        (
            {"linear_warmup": {"fraction": 0.8}, "explore_exploit": {"fraction": 0.9}},
            lambda t, total: min(warmup(t, total, 0.8), warmdown(t, total, 0.9)),
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_schedules_are_those_of_a_scheduler(
    components: dict[str, Any], rate: Callable[[int, int], float], total: int
) -> None:
    """In a long run it is 2/(1 − β2) that ends the warmup."""
    params = TINY.leaves()
    optimizer = adamw(params)
    scheduler = LambdaLR(optimizer, lambda steps_done: rate(steps_done + 1, total))
    mine = TINY.leaves()
    advance(Config(**NUMBERS, components=components).build(mine, total), mine, TINY.grads)
    for grads in TINY.grads:
        advance(optimizer, params, [grads])
        scheduler.step()
    assert_close(arrays(mine), arrays(params))


OFF = {
    "adaptive_gradient_clipping": {"agc_clipping_value": 1e30},
    "gradient_centralization": {"centralize_gradients": False},
    "lookahead": {"lookahead_merge_time": 10**9},
}
"""What switches a component off in pytorch_optimizer's Ranger21."""


@pytest.mark.parametrize("off", [(), *((name,) for name in OFF), tuple(OFF)], ids=lambda off: "-".join(off) or "none")
def test_five_components_together_are_pytorch_optimizers_ranger21(off: tuple[str, ...]) -> None:
    """Positive-negative momentum and norm loss, with three others on or off.

    What is different in pytorch_optimizer's Ranger21, and switched off here: softplus, gradient normalization,
    schedules of whole steps that end above zero, and a norm loss that is a term of its own, with twice its factor,
    beside a stable weight decay whose mean starts from one. It adds ε to the norms of rows.
    """

    def ranger21(params: list[nn.Parameter]) -> Optimizer:
        switches: dict[str, Any] = {}
        for name in off:
            switches |= OFF[name]
        return pytorch_optimizer.Ranger21(
            params,
            num_iterations=T,
            **NUMBERS | {"weight_decay": 0.0},
            **switches,
            norm_loss_factor=NUMBERS["weight_decay"] / 2,
            eps=1e-30,
            beta0=0.9,
            use_softplus=False,
            normalize_gradients=False,
            disable_lr_scheduler=True,
        )

    components = {name: name not in off for name in OFF} | {"positive_negative_momentum": True, "norm_loss": True}
    problem = PROBLEM.without("sometimes", "scalar", "conv", "another conv", "never", "single column")
    assert_close(ours(problem, eps=1e-30, **components), theirs(problem, ranger21))

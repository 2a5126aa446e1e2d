"""Parameters of half precision: computed and kept in single precision, rounded only when they are stored."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from autoranger import Config
from autoranger.components.core.component import registry
from autoranger.components.presets import RANGER21
from tests.recorded import with_eight

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
NUMBERS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}
CONFIGS = {"adamw": Config(**NUMBERS), "ranger21": Config(**NUMBERS, components=dict.fromkeys(RANGER21, True))}  # type: ignore[arg-type]


@HALVES
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_step_is_one_in_single_precision_that_is_rounded(way: None, config: Config, dtype: torch.dtype) -> None:
    check_rounding(config, dtype)


@pytest.mark.parametrize("name", registry)
def test_so_is_a_step_with_any_component(name: str) -> None:
    check_rounding(with_eight(name), torch.bfloat16)


def check_rounding(config: Config, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    half = [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in ((6, 5), (7,), (6, 5))]
    ours = config.build(half, total_steps=9)
    for _ in range(6):
        single = [nn.Parameter(p.detach().float()) for p in half]
        theirs = config.build(single, total_steps=9)
        theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
        for p, q in zip(half, single, strict=True):
            p.grad = torch.randn(p.shape, generator=generator).to(dtype)
            q.grad = p.grad.float()
        ours.step()
        theirs.step()
        for p, q in zip(half, single, strict=True):
            torch.testing.assert_close(p, q.to(dtype))
            for name, value in ours.state[p].items():
                assert value.dtype == (torch.int64 if name == "step" else torch.float32)
                torch.testing.assert_close(value, theirs.state[q][name], rtol=1e-4, atol=1e-6)


@HALVES
@pytest.mark.parametrize("name", ["sgd_momentum", "amsgrad", "positive_negative_momentum"])
def test_moments_do_not_stall(way: None, name: str, dtype: torch.dtype) -> None:
    """A thousandth of a moment is less than half precision can add; and squares of small gradients are there."""
    for size in (1.0, 1e-4):
        p = nn.Parameter(torch.ones(4, dtype=dtype))
        optimizer = Config(lr=0.0, betas=(0.999, 0.999), components={name: {}}).build([p])
        p.grad = torch.full_like(p, size)
        for _ in range(600):
            optimizer.step()
        g = p.grad.double()
        sums = {"velocity": 1000 * g, "variance": g**2, "max_variance": g**2, "mean": g}
        for key, found in optimizer.state[p].items():
            if (of := key.split(".")[-1]) in sums:
                torch.testing.assert_close(found.double(), sums[of] * (1 - 0.999**600), rtol=1e-3, atol=0)


def regression(
    dtype: torch.dtype, config: Config, steps: int = 200, state_dtype: torch.dtype | None = None
) -> tuple[float, Tensor]:
    """The loss of a small net after training, and its parameters."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1024, 16, generator=generator)
    targets = inputs[:, :1].tanh() + 0.5 * inputs[:, 1:2] * inputs[:, 2:3]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)).to(dtype)
    optimizer = config.build(net.parameters(), total_steps=steps, state_dtype=state_dtype)
    for t in range(steps):
        here = slice(64 * (t % 16), 64 * (t % 16) + 64)
        optimizer.zero_grad()
        (net(inputs[here].to(dtype)).float() - targets[here]).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        loss = (net(inputs.to(dtype)).float() - targets).square().mean().item()
    return loss, torch.cat([p.detach().float().flatten() for p in net.parameters()])


@HALVES
def test_a_training_in_half_precision_ends_near_that_in_single(dtype: torch.dtype) -> None:
    config = Config(lr=1e-2, components=dict.fromkeys(RANGER21, True))
    (exact, there), (loss, here) = regression(torch.float32, config), regression(dtype, config)
    assert loss < 1.1 * exact
    assert (here - there).norm() < 0.2 * there.norm()

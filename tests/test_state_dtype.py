"""State in bfloat16: rounded by chance, so that nothing is lost on average, and the same in every way to run a step."""

from __future__ import annotations

import copy
import io
import itertools

import pytest
import torch
from torch import Tensor, nn

from autoranger import Config, Ranger21
from autoranger.components.core.component import registry
from autoranger.components.core.errors import ConfigError
from autoranger.components.core.matrices import is_of_pairs
from autoranger.components.core.reference import extra_bytes
from autoranger.components.core.rounding import salt_of, stochastic
from autoranger.components.presets import RANGER21
from tests.recorded import CONFIGS, FULL, NUMBERS, with_eight
from tests.test_half import regression

SHORT = torch.bfloat16
SHAPES = ((33, 17), (33, 17), (9,), (70, 1000))


def rounded(x: Tensor, count: int) -> Tensor:
    return stochastic(x, torch.full((1, 1, 1, 1), count), torch.arange(x.shape[2]).view(1, 1, -1, 1), salt_of("m"))


def test_rounding_is_to_a_neighbour_and_right_on_average() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, 50, 60) * torch.logspace(-30, 30, 60)
    found = torch.stack([rounded(x, t) for t in range(2000)])
    low = (x.view(torch.int32) & ~0xFFFF).view(torch.float32)
    high = ((x.view(torch.int32) & ~0xFFFF) + 0x10000).view(torch.float32)
    assert ((found == low) | (found == high)).all()
    up, part = (found == high).float().mean(dim=0), (x - low) / (high - low)
    error = (up - part) / (part * (1 - part) / 2000).sqrt().clamp_min(1e-4)
    assert error.mean().abs() < 0.1, "3,000 numbers, 2,000 times each: a standard error of 0.02"
    assert 0.9 < error.std() < 1.1, "each as often as chance has it"
    assert not torch.equal(rounded(x, 1), stochastic(x, torch.ones(1), torch.arange(50).view(50, 1), salt_of("v")))


def test_what_bfloat16_has_stays_what_it_is() -> None:
    everything = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(SHORT)
    here = everything.float().view(1, 1, 256, 256)
    torch.testing.assert_close(rounded(here, 3).flatten(), everything, rtol=0, atol=0, equal_nan=True)
    awkward = torch.tensor([0x7FFFFFFF, -1, 0x7F800001], dtype=torch.int32).view(torch.float32).view(1, 1, 1, 3)
    assert rounded(awkward, 3).isnan().all(), "a NaN whose bits would overflow"


def train(config: Config, dtype: torch.dtype = torch.float32, **how: object) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and state after a few steps, one parameter without a gradient in one of them."""
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    optimizer = config.build(params, total_steps=12, state_dtype=SHORT, **how)  # type: ignore[arg-type]
    for t in range(6):
        for i, p in enumerate(params):
            grad = torch.randn(p.shape, generator=generator).to(dtype)
            p.grad = None if (i, t) == (1, 3) else grad
        optimizer.step()
    held = [value for p in params for name, value in optimizer.state[p].items() if name != "step"]
    return [p.detach() for p in params], held


@pytest.mark.parametrize("dtype", [torch.float32, SHORT], ids=str)
@pytest.mark.parametrize("name", ["adamw", "ranger21", "global sums", "madgrad", "sgd_momentum"])
def test_every_way_rounds_alike(way: None, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws are the same, so only numbers that differ by rounding may be drawn to different sides."""
    params, held = train(CONFIGS[name], dtype)
    with monkeypatch.context() as patch:
        patch.setattr("autoranger.components.optimizer.layout.interpreter", lambda *_: None)
        expected, states = train(CONFIGS[name], dtype, compile=False)
    for p, q in zip(params, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-2 if dtype is SHORT else 2e-3)
        assert dtype is torch.float32 or (p != q).float().mean() < 1e-3
    for x, y in zip(held, states, strict=True):
        assert x.dtype == y.dtype
        if x.dtype == SHORT:
            assert (x != y).float().mean() < 0.02


@pytest.mark.parametrize("name", registry)
def test_moments_are_short_and_copies_of_weights_are_not(name: str) -> None:
    p = nn.Parameter(torch.ones(4, 3))
    optimizer = with_eight(name).build([p], total_steps=9, state_dtype=SHORT)
    p.grad = torch.ones_like(p)
    optimizer.step()
    every = ((f"{c.id}.{n}", initial) for c in registry.values() for n, initial in c.state.items())
    exact = {key for key, initial in every if initial is torch.clone or is_of_pairs(initial)}
    for key, value in optimizer.state[p].items():
        assert value.dtype == (torch.int64 if key == "step" else torch.float32 if key in exact else SHORT)


@pytest.mark.parametrize("name", registry)
def test_the_bytes_of_a_component_are_what_an_optimizer_keeps(name: str) -> None:
    def kept(components: dict[str, object]) -> int:
        p = nn.Parameter(torch.ones(5, 5))  # of the kind and shape that every component counts for
        optimizer = Config(components=components).build([p], total_steps=9, state_dtype=SHORT)  # type: ignore[arg-type]
        p.grad = torch.ones_like(p)
        optimizer.step()
        return sum(x.nbytes for key, x in optimizer.state[p].items() if key != "step")

    assert kept({name: {}}) - kept({}) == extra_bytes(registry[name], SHORT) * 25


def test_full_ranger21_keeps_twelve_bytes_a_number_instead_of_twenty() -> None:
    p = nn.Parameter(torch.ones(10))
    p.grad = torch.ones_like(p)
    for state_dtype, size in ((None, 20), (SHORT, 12)):
        optimizer = Ranger21([p], total_steps=9, state_dtype=state_dtype)
        optimizer.step()
        assert sum(x.nbytes for name, x in optimizer.state[p].items() if name != "step") == 10 * size


def test_a_training_goes_on_bit_for_bit(way: None) -> None:
    def leaves() -> list[nn.Parameter]:
        return [nn.Parameter(torch.linspace(-1, 1, 60).view(5, 12)), nn.Parameter(torch.linspace(-1, 1, 7))]

    def step(optimizer: torch.optim.Optimizer, t: int) -> None:
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.sin(t + torch.arange(p.numel())).view_as(p)
        optimizer.step()

    through, before = leaves(), leaves()
    optimizers = [FULL.build(params, total_steps=12, state_dtype=SHORT) for params in (through, before)]
    for optimizer, t in itertools.product(optimizers, range(5)):
        step(optimizer, t)
    file = io.BytesIO()
    torch.save(optimizers[1].state_dict(), file)
    file.seek(0)
    after = [nn.Parameter(p.detach().clone()) for p in before]
    resumed = FULL.build(after, total_steps=12, state_dtype=SHORT)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(optimizers[1])
    for optimizer, t in itertools.product((optimizers[0], resumed, copied), range(5, 9)):
        step(optimizer, t)
    for p, q, r in zip(through, after, copied.param_groups[0]["params"], strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p, r)


def test_state_of_the_other_type_is_taken_over() -> None:
    for first, second in ((None, SHORT), (SHORT, None)):
        p = nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
        p.grad = torch.ones_like(p)
        before = FULL.build([p], total_steps=12, state_dtype=first)
        before.step()
        after = FULL.build([p], total_steps=12, state_dtype=second)
        after.load_state_dict(before.state_dict())
        after.step()
        assert int(after.state[p]["step"]) == 2
        kinds = {x.dtype for name, x in after.state[p].items() if name.startswith("second_moment")}
        assert kinds == {second or torch.float32}


@pytest.mark.parametrize("name", ["sgd_momentum", "amsgrad", "positive_negative_momentum"])
def test_moments_do_not_stall(way: None, name: str) -> None:
    """Rounded to the nearest bfloat16 they would, at about half of what they come to."""
    p = nn.Parameter(torch.ones(4096))
    optimizer = Config(lr=0.0, betas=(0.999, 0.999), components={name: {}}).build([p], state_dtype=SHORT)
    p.grad = torch.full_like(p, 0.37)
    for _ in range(400):
        optimizer.step()
    g = 0.37
    sums = {"velocity": 1000 * g, "variance": g**2, "mean": g}
    for key, found in optimizer.state[p].items():
        if (of := key.split(".")[-1]) in sums:
            wanted = sums[of] * (1 - 0.999**400)
            assert abs(found.double().mean() / wanted - 1) < 2e-3, "on average"
            assert (found.double() / wanted - 1).abs().max() < 0.2, "and nowhere far"


def test_a_training_ends_where_it_does_with_float32() -> None:
    config = Config(lr=1e-2, components=dict.fromkeys(RANGER21, True))
    (exact, there), (loss, here) = (
        regression(torch.float32, config),
        regression(torch.float32, config, state_dtype=SHORT),
    )
    assert loss < 1.1 * exact
    assert (here - there).norm() < 0.2 * there.norm()


def test_the_type_is_checked_in_one_sentence() -> None:
    p = nn.Parameter(torch.ones(3))
    for wrong in (torch.float16, torch.float64, "bfloat16"):
        with pytest.raises(ConfigError, match=r"^state_dtype is .*must be torch.bfloat16, or None"):
            Ranger21([p], total_steps=9, state_dtype=wrong)  # type: ignore[arg-type]
    double = nn.Parameter(torch.ones(3, dtype=torch.float64))
    with pytest.raises(ConfigError, match="not of float64"):
        Config(**NUMBERS).build([double], state_dtype=SHORT)

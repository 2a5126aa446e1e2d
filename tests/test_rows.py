"""Rows are output units: those of transposed convolutions, and rows of one number."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from autoranger import Config, Ranger21
from autoranger.components.core.rows import by_rows, from_rows, is_matrix, row_shape
from autoranger.components.core.transposed import transposed
from autoranger.components.presets import RANGER21
from autoranger.search.population import Population
from autoranger.search.population.chunk import Chunk
from tests import toy
from tests.conftest import Array, assert_close
from tests.references import reference

EIGHT = Config(lr=1e-2, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1, components=dict.fromkeys(RANGER21, True))
STEPS = 12

LAYERS = {
    "plain": lambda: nn.ConvTranspose2d(4, 6, 3),
    "one dimension": lambda: nn.ConvTranspose1d(4, 3, 2, stride=2, bias=False),
    "three dimensions": lambda: nn.ConvTranspose3d(2, 3, 2),
    "groups": lambda: nn.ConvTranspose2d(4, 6, (3, 2), groups=2),
    "depthwise": lambda: nn.ConvTranspose2d(4, 4, 3, groups=4),
    "single output": lambda: nn.ConvTranspose2d(4, 1, 1),
    "stacked": lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 4, 3, bias=False), nn.ConvTranspose2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, bias=False)
    ),
}


def output_units(layer: nn.Module, x: Array) -> Array:
    """A kernel as `[O, …]`, one output unit after another, by what each of them is made of."""
    if not isinstance(layer, nn.modules.conv._ConvTransposeNd) or x.ndim == 1:
        return x
    parts = np.split(x, layer.groups)  # each `[I/groups, O/groups, …]`
    return np.concatenate([np.swapaxes(part, 0, 1) for part in parts])


def owners(model: nn.Module) -> list[nn.Module]:
    """For each parameter the layer that has it."""
    return [layer for layer in model.modules() for _ in layer.parameters(recurse=False)]


each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


@each_layer
def test_an_output_unit_of_a_transposed_convolution_is_a_row(make: Callable[[], nn.Module]) -> None:
    check_rows(make())


@each_layer
@pytest.mark.usefixtures("interpreter")
def test_an_output_unit_of_a_transposed_convolution_is_a_row_as_recorded(make: Callable[[], nn.Module]) -> None:
    check_rows(make())


@each_layer
@pytest.mark.usefixtures("compiler")
def test_an_output_unit_of_a_transposed_convolution_is_a_row_when_compiled(make: Callable[[], nn.Module]) -> None:
    check_rows(make(), compile=True)


def check_rows(model: nn.Module, compile: bool = False) -> None:
    """The eight on this model, against the reference on kernels that have their output units first."""
    torch.manual_seed(0)
    model = model.double()
    params = list(model.parameters())
    start = [output_units(layer, p.detach().numpy().copy()) for layer, p in zip(owners(model), params, strict=True)]
    optimizer = EIGHT.build(model.parameters(), STEPS, compile=compile or "auto")
    rng, grads = np.random.default_rng(0), []
    for _ in range(STEPS):
        grads.append([rng.normal(size=p.shape) for p in params])
        for p, grad in zip(params, grads[-1], strict=True):
            p.grad = torch.tensor(grad)
        optimizer.step()
    turned = [[output_units(*pair) for pair in zip(owners(model), step, strict=True)] for step in grads]
    expected = reference(EIGHT)(EIGHT, start, turned, STEPS)
    actual = [output_units(layer, p.detach().numpy()) for layer, p in zip(owners(model), params, strict=True)]
    assert_close(actual, expected)


def test_the_state_of_a_transposed_convolution_is_in_the_order_of_its_kernel() -> None:
    for groups in (1, 2):
        layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False).double()
        optimizer = Config().build(layer.parameters())
        layer.weight.grad = torch.randn_like(layer.weight)
        optimizer.step()
        mean = optimizer.state[layer.weight]["first_moment.mean"]
        torch.testing.assert_close(mean.reshape(layer.weight.shape), 0.1 * layer.weight.grad)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_resumes_exactly(groups: int) -> None:
    def train(layer: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for t in steps:
            torch.manual_seed(t)
            layer.weight.grad = torch.randn_like(layer.weight)
            optimizer.step()

    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    optimizer = EIGHT.build(layer.parameters(), STEPS)
    train(layer, optimizer, range(7))
    other = copy.deepcopy(layer)
    resumed = EIGHT.build(other.parameters(), STEPS)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(layer, optimizer, range(7, STEPS))
    train(other, resumed, range(7, STEPS))
    assert torch.equal(layer.weight, other.weight)


def test_kernels_of_transposed_convolutions_are_found_by_their_layers() -> None:
    one, two = nn.ConvTranspose2d(4, 3, 2), nn.ConvTranspose1d(4, 6, 3, groups=2)
    kernels = {one.weight: 1, two.weight: 2}
    other = [nn.Conv2d(4, 3, 2).weight, nn.Parameter(torch.zeros(4, 3, 2, 2))]
    every = [*other, *one.parameters(), *two.parameters()]
    assert transposed(every) == kernels
    assert transposed(every, [one]) == {one.weight: 1}
    assert transposed(other) == {}
    normed = nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(4, 3, 2), dim=1)
    direction = normed.parametrizations.weight.original1
    assert transposed(normed.parameters()) == {direction: 1}


def test_rows_are_laid_out_and_back() -> None:
    for shape, groups, rows in (((4, 3, 2, 2), 1, (3, 16)), ((4, 3, 5), 2, (6, 10)), ((5, 3), 0, (5, 3))):
        x = torch.randn(shape)
        assert row_shape(x.shape, groups) == rows
        laid_out = by_rows(x, groups).reshape(rows)
        assert torch.equal(from_rows(laid_out, x.shape, groups).reshape(shape), x)
        assert torch.equal(by_rows(x[None], groups, 1)[0], by_rows(x, groups))


@pytest.mark.parametrize(
    ("shape", "groups", "matrix"),
    [((), 0, False), ((5,), 0, False), ((5, 1), 0, False), ((5, 1, 1, 1), 0, False), ((1, 5), 0, True),
     ((5, 1), 1, True), ((5, 1, 1, 1), 5, False), ((5, 2, 1, 1), 5, False)],
)  # fmt: skip
def test_a_matrix_has_rows_of_more_than_one_number(shape: tuple[int, ...], groups: int, matrix: bool) -> None:
    assert is_matrix(torch.Size(shape), groups) == matrix


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(1, 6), (3, 1)),
        (nn.Conv2d(4, 4, 1, groups=4), (3, 4, 5, 5)),
        (nn.ConvTranspose2d(4, 8, 1, groups=4), (3, 4, 5, 5)),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)), (3, 3)),
        (nn.Embedding(7, 1), None),
    ],
    ids=["linear", "depthwise", "transposed depthwise", "weight norm's scales", "embedding"],
)
def test_a_row_of_one_number_is_trained(layer: nn.Module, shape: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(layer)
    before = [p.detach().clone() for p in layer.parameters()]
    optimizer = Ranger21(layer.parameters(), lr=1e-2, weight_decay=0.0, total_steps=20)
    for _ in range(20):
        optimizer.zero_grad()
        x = torch.randint(0, 7, (5,)) if shape is None else torch.randn(shape)
        layer(x).square().mean().backward()
        optimizer.step()
    for p, old in zip(layer.parameters(), before, strict=True):
        assert (p - old).abs().max() > 1e-3


class Decoder(toy.Toy):
    """With transposed convolutions, one of them in groups, and a layer with a single input."""

    def model(self) -> nn.Module:
        first = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 12), nn.Unflatten(1, (4, 3)))
        last = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
        return nn.Sequential(first, nn.ConvTranspose1d(4, 6, 2, groups=2), nn.Tanh(), nn.ConvTranspose1d(6, 6, 3), last)


def test_a_row_of_a_population_has_the_same_rows_as_the_optimizer_alone() -> None:
    check_population()


@pytest.mark.usefixtures("compiler")
def test_a_row_of_a_population_has_the_same_rows_as_the_optimizer_alone_when_compiled() -> None:
    check_population()


def check_population() -> None:
    """A population of two candidates, against the second one alone."""
    task = Decoder()
    population = Population(task)
    chunk = Chunk(population, [Config(), EIGHT], [3], STEPS)
    inputs, targets = task.data()["train"]
    torch.manual_seed(3)
    model = task.model()
    optimizer = EIGHT.build(model.parameters(), STEPS)
    for t in range(STEPS):
        batch = slice(t, t + 8)
        chunk.advance(inputs[None, batch], targets[None, batch])
        optimizer.zero_grad()
        task.loss(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(chunk.params[f"model.{name}"][1].detach(), p.detach(), rtol=1e-3, atol=1e-5)

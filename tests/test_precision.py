"""Mixed precision: what `torch.autocast` does to one model, `Population(…, precision=torch.bfloat16)` does to many."""

from __future__ import annotations

import itertools
import re
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoranger import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.population import Population
from autoranger.search.population.chunk import Chunk
from autoranger.search.population.precision import mixed
from autoranger.search.vectorization import batch_order, reseed
from tests import toy

CONFIGS = [Config(lr=0.01), Config.preset("ranger21", lr=0.03)]
SEEDS = [3, 11]
STEPS = 20


def alone(task: toy.Toy, config: Config, seed: int) -> float:
    """The same training as a user would write it under `torch.autocast`."""
    inputs, targets = task.data()["train"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = task.model()
        optimizer = config.build(model.parameters(), total_steps=STEPS)
        for t, indices in enumerate(batch_order(len(inputs), task.batch_size, STEPS, seed)):
            reseed(torch.device("cpu"), t)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                output = model(inputs[indices])
            task.loss(output.float(), targets[indices]).backward()
            optimizer.step()
    model.eval()
    x, y = task.data()["valid"]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(x)
    return float(task.metric(output.float(), y))


@pytest.mark.parametrize("kind", [toy.Toy, toy.TiedTask, toy.Normalized, toy.Pictures, toy.Text])
def test_a_row_is_the_training_of_its_config_alone_under_autocast(kind: type[toy.Toy]) -> None:
    task = kind()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no fallback to one-by-one training
        mixed = Population(task, precision=torch.bfloat16).train(CONFIGS, SEEDS, STEPS)["valid"]
    expected = np.array([[alone(task, config, seed) for seed in SEEDS] for config in CONFIGS])
    full = Population(task).train(CONFIGS, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(mixed, expected, rtol=2e-3, atol=5e-4)
    assert (mixed != full).all()
    assert np.abs(mixed - full).max() > 1e-4


def test_a_model_that_vmap_refuses_is_called_in_low_precision_too() -> None:
    with pytest.warns(UserWarning, match="one by one"):
        refused = Population(toy.Refused(), precision=torch.bfloat16)
    found = refused.train(CONFIGS, SEEDS, STEPS)["valid"]
    expected = Population(toy.Toy(), precision=torch.bfloat16).train(CONFIGS, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(found, expected, rtol=5e-3)
    assert (found != Population(toy.Toy()).train(CONFIGS, SEEDS, STEPS)["valid"]).all()


class Products(TorchDispatchMode):
    """Counts products and convolutions, forward and backward, by the type of what they return."""

    NAMES = ("mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, torch.dtype]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        name = str(func).split(".")[1]
        if name in self.NAMES:
            self.found[name, next(x.dtype for x in tree_leaves(result) if isinstance(x, Tensor))] += 1
        return result


@pytest.mark.parametrize("kind", [toy.Toy, toy.Pictures, toy.Text])
def test_every_product_is_in_low_precision_and_what_is_kept_is_not(kind: type[toy.Toy]) -> None:
    population = Population(kind(), precision=torch.bfloat16)
    chunk = Chunk(population, CONFIGS, SEEDS, STEPS)
    for inputs, targets in itertools.islice(population._batches(SEEDS, STEPS), 2):
        with Products() as products:
            chunk.advance(inputs, targets)
        assert {dtype for _, dtype in products.found} == {torch.bfloat16}
        assert len(products.found) >= 1 + 2 * (kind is toy.Pictures)
    kept = [*chunk.params.values(), *chunk.optimizer.buffers()]
    assert {x.dtype for x in kept if x.is_floating_point()} == {torch.float32}
    assert {x.dtype for x in chunk.buffers.values() if x.is_floating_point()} <= {torch.float32}
    losses, grads, _ = chunk.models.gradients(inputs, targets)
    assert {x.dtype for x in (losses, *grads)} == {torch.float32}


class Several(toy.Toy):
    """A model whose output is not a tensor."""

    def model(self) -> nn.Module:
        return Pair(*super().model())

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return super().loss(output["scores"].float(), target)

    def metric(self, output: Any, target: Tensor) -> Tensor:
        return super().metric(output["scores"].float(), target)


class Pair(nn.Sequential):
    def forward(self, x: Tensor) -> Any:
        return {"scores": super().forward(x), "inputs": x}


def test_an_output_that_is_no_tensor_is_left_to_the_task() -> None:
    found, expected = (Population(k(), precision=torch.bfloat16).train(CONFIGS, [0], 8) for k in (Several, toy.Toy))
    assert (found["valid"] == expected["valid"]).all()


class Double(toy.Toy):
    def data(self):
        return {name: (x.double(), y) for name, (x, y) in super().data().items()}

    def model(self) -> nn.Module:
        return super().model().double()


@pytest.mark.parametrize(
    ("task", "precision", "words"),
    [
        (toy.Toy(), torch.float16, "precision is torch.float16, but must be torch.bfloat16, or None for float32"),
        (toy.Toy(), "bfloat16", "precision is 'bfloat16', but must be torch.bfloat16"),
        (Double(), torch.bfloat16, "but the model has parameters in torch.float64; leave it None."),
        (toy.Toy("meta"), torch.bfloat16, "but meta cannot do that"),
    ],
)
def test_a_precision_that_cannot_be_is_said_in_one_sentence(task: toy.Toy, precision: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        Population(task, precision=precision)
    assert "\n" not in str(error.value)


def test_a_model_in_double_precision_trains_without() -> None:
    assert np.isfinite(Population(Double()).train(CONFIGS, [0], 3)["valid"]).all()


def test_a_model_may_switch_it_off() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(1, 3)
    with mixed(torch.device("cpu"), torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert layer(x).dtype == torch.float32

"""No component, alone or in company, turns what AdamW trains at the same rate into NaN or an explosion.

All configs train at once, as rows of a population, on small nets of the kinds that have gradients which are only
rounding, that are exactly zero for a while, or that have rows, tensors and scales of awkward shapes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from autoranger import Config
from autoranger.components.core.component import conflicts, registry
from autoranger.components.presets import RANGER21
from autoranger.search.population import Population
from autoranger.search.population.chunk import Chunk
from autoranger.search.population.replica import Replica
from autoranger.search.space import compatible
from tests.conftest import PROBLEM, differ, follow
from tests.test_components import config
from tests.toy import Tied, Toy

STEPS = 50
LITERAL = dict.fromkeys(RANGER21, True) | {"stable_weight_decay": {"bound": 1e30}}
RATES = (1e-3, 1e-2)

pytestmark = pytest.mark.usefixtures("compiler")


class Attention(nn.Module):
    """Over the four numbers of an input, each by a layer with one input. The bias of the keys has no effect."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(1, 8), nn.Parameter(0.1 * torch.randn(4, 8))
        self.queries, self.keys, self.values, self.head = *(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 2)
        for layer in (self.queries, self.keys, self.values):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x[..., None]) + self.places
        weights = (self.queries(z) @ self.keys(z).mT).softmax(-1)
        return self.head((z + weights @ self.values(z)).mean(-2))


class UnusedRows(nn.Module):
    """An embedding of which sixteen rows are used, and one of width 1."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.head = nn.Embedding(60, 6), nn.Embedding(60, 1), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        index = ((x > 0).long() * torch.tensor([1, 2, 4, 8])).sum(-1)
        return self.head(torch.cat([self.wide(index), self.narrow(index)], -1))


class Recurrent(nn.Module):
    """A long short-term memory that reads one number after another. Written out: vmap runs torch's row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.hidden, self.head = nn.Linear(1, 24), nn.Linear(6, 24), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = cell = torch.zeros(len(x), 6)
        for i in range(4):
            taken, kept, new, shown = (self.inputs(x[:, i : i + 1]) + self.hidden(hidden)).chunk(4, -1)
            cell = torch.sigmoid(kept) * cell + torch.sigmoid(taken) * torch.tanh(new)
            hidden = torch.sigmoid(shown) * torch.tanh(cell)
        return self.head(hidden)


class WeightNorm(nn.Module):
    """A layer whose weight is a direction and a length for each row. Written out, for the same reason."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.direction, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))
        self.length = nn.Parameter(torch.ones(outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.length * self.direction / self.direction.norm(dim=1, keepdim=True)
        return nn.functional.linear(x, weight, self.bias)


class DeadUnits(nn.Module):
    """A branch from which nothing comes, nor any gradient into it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
        nn.init.constant_(self.second.bias, -10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.first(x)) + torch.relu(self.second(x)))


class Scales(nn.Module):
    """A branch behind tiny scales and one behind a gate that is shut: their gradients are tiny, and zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.channels, self.gate = nn.Parameter(torch.full((1, 6), 1e-6)), nn.Parameter(torch.zeros(()))
        self.single = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.channels * torch.tanh(self.second(x))
        return self.head(self.single * x + self.gate * torch.relu(self.second(x)))


def convolutions(*layers: nn.Module) -> nn.Module:
    """Over pictures of 2×2."""
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), *layers, nn.Flatten(), nn.LazyLinear(2))


def ready(net: nn.Module) -> nn.Module:
    """Lets layers find out their sizes."""
    net(torch.randn(3, 4))
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    "attention": Attention,
    "batch norm after biases": lambda: convolutions(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
    ),
    "layer norm after biases": lambda: nn.Sequential(
        nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 2)
    ),
    "unused rows": UnusedRows,
    "one input": lambda: nn.Sequential(nn.Linear(4, 1), nn.Tanh(), nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 2)),
    "depthwise": lambda: convolutions(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=4)),
    "transposed": lambda: convolutions(
        nn.ConvTranspose2d(1, 4, 2), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4)
    ),
    "grouped": lambda: convolutions(nn.Conv2d(1, 4, 2, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 2, groups=2)),
    "recurrent": Recurrent,
    "weight norm": lambda: nn.Sequential(WeightNorm(4, 6), nn.Tanh(), WeightNorm(6, 2)),
    "tied": Tied,
    "scales": Scales,
    "dead units": DeadUnits,
}


class Small(Toy):
    """One of the nets on the toy's data."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.make = make

    def model(self) -> nn.Module:
        net = self.make()
        net(torch.randn(3, 4))  # lazy layers find out their sizes
        return net


def check(make: Callable[[], nn.Module], trained: Mapping[float, Sequence[Sequence[str]]]) -> None:
    """Every subset of components, by learning rate, at its default hyperparameters, next to AdamW at the same rate."""
    task = Small(make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a net that vmap refuses would take minutes
        population = Population(task)
    configs = [
        Config(lr=lr, components=dict.fromkeys(names, True))
        for lr, subsets in trained.items()
        for names in ((), *subsets)
    ]
    adamw = {config.lr: k for k, config in enumerate(configs) if not config.components}
    beside = torch.tensor([adamw[config.lr] for config in configs])
    chunk = Chunk(population, configs, [0], STEPS)
    x, y = task.data()["train"]
    before = chunk.models.at_once(Replica.loss, slice(None), x, y)[0].item()
    for t in range(STEPS):
        batch = torch.arange(t, t + 16) % len(x)
        chunk.advance(x[None, batch], y[None, batch])
    losses = chunk.models.at_once(Replica.loss, slice(None), x, y).detach()
    largest = torch.stack([theta.abs().flatten(1).amax(1) for theta in chunk.thetas]).amax(0)
    assert (losses[beside] < before).all(), "AdamW trains this net"
    wild = ~(losses.isfinite() & (losses < 10 * before) & (largest < 10 * largest[beside]))
    found = [
        f"{' + '.join(configs[k].components)} at {configs[k].lr:g}: loss {losses[k]:.3g} "
        f"(AdamW {losses[beside[k]]:.3g}), largest parameter {largest[k]:.3g} (AdamW {largest[beside[k]]:.3g})"
        for k in wild.nonzero()[:, 0].tolist()
    ]
    assert not found, "\n".join(found)


def test_a_literal_rule_explodes_where_gradients_are_only_rounding() -> None:
    model = Attention()
    optimizer = Config.preset("ranger21", components=LITERAL).build(model.parameters(), STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    assert not model.keys.bias.abs().max() < 1e3


def test_the_bounded_rule_is_the_literal_one_to_the_bit_where_that_does_not_overshoot() -> None:
    ordinary = PROBLEM.without("zero bias")  # clipped to gradients that are next to none
    for settings in ({}, {"scope": "global"}):
        both = [config(**LITERAL | {"stable_weight_decay": settings | bound}) for bound in ({}, {"bound": 1e30})]
        assert not differ(*(follow(c, ordinary) for c in both))
    both = [config(**LITERAL | {"stable_weight_decay": bound}) for bound in ({}, {"bound": 1e30})]
    assert differ(*(follow(c, PROBLEM) for c in both))


def test_a_decay_never_leads_further_than_to_its_goal() -> None:
    """Whatever the gradient: weights shrink, and rows of tiny or huge norm come nearer to 1."""
    for scale in 10.0 ** torch.arange(-20, 3, dtype=torch.float64):
        for components in ({"stable_weight_decay": {}}, {"stable_weight_decay": {}, "norm_loss": {}}):
            theta = nn.Parameter(torch.tensor([[1e-6, 2e-6], [0.1, 0.2], [3.0, 4.0]], dtype=torch.float64))
            before = theta.detach().norm(dim=1)
            theta.grad = scale * torch.ones_like(theta)
            still = Config(lr=1e-2, eps=1e30, weight_decay=0.1, components=components)  # the direction is next to none
            still.build([theta]).step()
            after = theta.detach().norm(dim=1)
            goal = 1.0 if "norm_loss" in components else 0.0
            assert ((after - goal) * (before - goal) >= -1e-12).all()
            assert ((after - goal).abs() <= (before - goal).abs()).all()


def together(name: str) -> list[str]:
    """A component and all that go with it, Ranger21's first."""
    return compatible(dict.fromkeys([name, *RANGER21, *registry]))


each_net = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


@each_net
def test_no_component_alone_or_with_all_others_explodes(make: Callable[[], nn.Module]) -> None:
    without = [[name for name in RANGER21 if name != left_out] for left_out in RANGER21]
    subsets = [RANGER21, *without, *([name] for name in registry), *map(together, registry)]
    check(make, dict.fromkeys(RATES, subsets))


@pytest.mark.slow
@each_net
def test_no_pair_of_components_explodes(make: Callable[[], nn.Module]) -> None:
    """At one of the rates, which is the other one for the next net."""
    pairs, odd = [pair for pair in combinations(registry, 2) if not conflicts(pair)], [*NETS.values()].index(make) % 2
    check(make, {RATES[odd]: pairs[::2], RATES[1 - odd]: pairs[1::2]})

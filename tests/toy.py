"""Small tasks for the tests of the search: seconds instead of minutes, and a metric without ties."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoranger import Config
from autoranger.search.tasks.shakespeare import Transformer
from autoranger.search.tasks.task import Task

CONFIGS = [
    Config.preset("ranger21", lr=0.03),
    Config(lr=0.01),
    Config(lr=0.1, weight_decay=0.1, components={"lookahead": {"k": 3}, "norm_loss": {}}),
]
WILD = Config(lr=1e38)
"""Diverges at once."""
SEEDS = [3, 11]


class Toy(Task):
    """Two noisy classes in the plane; the metric is the negative loss, so that any difference of weights shows."""

    name = "toy"
    summary = "two noisy classes"
    source = "made here"
    metric_name = "negative loss"
    batch_size = 8
    steps = 12
    lr_range = (1e-2, 1e-1)

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(96, 4, generator=generator)
        y = ((x[:, 0] + x[:, 1] * x[:, 2] + 0.3 * torch.randn(96, generator=generator)) > 0).long()
        return {"train": (x[:48], y[:48]), "valid": (x[48:72], y[48:72]), "test": (x[72:], y[72:])}

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        return -F.cross_entropy(output, target)


class Normalized(Toy):
    """With batch normalization: buffers that training changes."""

    def model(self) -> nn.Module:
        # No bias before the normalization: its true gradient is zero, and what is left is amplified rounding noise.
        return nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))


class Pictures(Toy):
    """Two noisy classes of pictures of 6×6 pixels, for convolutions with batch normalization."""

    def data(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(96, 2, 6, 6, generator=generator)
        y = (x[:, 0, :3].mean(dim=(-2, -1)) > x[:, 1, 3:].mean(dim=(-2, -1))).long()
        return {"train": (x[:48], y[:48]), "valid": (x[48:72], y[48:72]), "test": (x[72:], y[72:])}

    def model(self) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(24, 2)),
        )


class Text(Toy):
    """What comes next in a sequence with a simple rule, by the transformer of `shakespeare` in small."""

    def data(self):
        generator = torch.Generator().manual_seed(0)
        start = torch.randint(0, 7, (96, 1), generator=generator)
        every = (start + torch.arange(9).square()) % 7
        x, y = every[:, :-1].contiguous(), every[:, 1:].contiguous()
        return {"train": (x[:48], y[:48]), "valid": (x[48:72], y[48:72]), "test": (x[72:], y[72:])}

    def model(self) -> nn.Module:
        return Transformer(characters=7, context=8, width=16, heads=2, blocks=1, hidden=16)

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        return -self.loss(output, target)


class Noisy(Toy):
    """With dropout and a random change of the batches."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 2))

    def augment(self, inputs: Tensor) -> Tensor:
        return inputs + 0.1 * torch.randn_like(inputs)


class Tied(nn.Module):
    """A weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.tanh(self.first(x))))


class TiedTask(Toy):
    """With weight tying."""

    def model(self) -> nn.Module:
        return Tied()


class Frozen(Toy):
    """With a layer that is not trained."""

    def model(self) -> nn.Module:
        model = super().model()
        model[0].weight.requires_grad_(False)
        return model


class Branching(nn.Sequential):
    """Control flow that depends on weights, which vmap refuses."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self[0].weight.abs().sum() > 0 else x + 1)


class Refused(Toy):
    """The toy's model in a form that vmap refuses."""

    def model(self) -> nn.Module:
        return Branching(*super().model())

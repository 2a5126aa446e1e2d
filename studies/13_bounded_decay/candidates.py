"""Rules for stable weight decay that do not explode, and the one of the paper, as components."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoranger import Config
from autoranger.components.core.component import Component, Role, Signals, Stage
from autoranger.components.core.rows import tensor_mean, tensor_size, tensor_sum
from autoranger.components.presets import RANGER21


class Candidate(Component, register=False):
    """Divide the weight decay by the root of the mean second moment, within a bound."""

    stage = Stage.DECAY
    source = "studies/13_bounded_decay"
    needs = frozenset({Role.SECOND_MOMENT})

    def factor(self, x: Signals) -> Tensor:
        """The paper's."""
        mean = tensor_mean(x.variance_hat)
        return torch.where(mean > 0, mean.rsqrt(), 1.0)

    def forward(self, x: Signals) -> Signals:
        return x._replace(decay=x.decay * self.factor(x))


class Literal(Candidate):
    """The paper's rule."""


class Cap(Candidate, register=False):
    """At most this part of the way to where the decay leads, in one step."""

    part: float

    def factor(self, x: Signals) -> Tensor:
        limit = self.part / (x.lr * x.rate * x.weight_decay)
        return torch.minimum(super().factor(x), limit)


class CapWhole(Cap):
    """All of the way: what is just no overshoot."""

    part = 1.0


class CapTenth(Cap):
    """A tenth."""

    part = 0.1


class Fade(Candidate):
    """As much less than all of the way as the rule wants more."""

    def factor(self, x: Signals) -> Tensor:
        factor, limit = super().factor(x), 1 / (x.lr * x.rate * x.weight_decay)
        return torch.minimum(factor, limit * (limit / factor))


class Plain(Candidate):
    """The plain weight decay where the rule wants more than all of the way."""

    def factor(self, x: Signals) -> Tensor:
        factor, limit = super().factor(x), 1 / (x.lr * x.rate * x.weight_decay)
        return torch.where(factor > limit, 1.0, factor)


class Unit(Candidate):
    """λ/√mean(v̂) of at most 1: with the learning rate, which is a part of the weight then, as the decay per step."""

    def factor(self, x: Signals) -> Tensor:
        return torch.minimum(super().factor(x), 1 / x.weight_decay)


class Root(CapWhole):
    """A floor of 1e-4 under the root as well, for vectors: one of zeros is clipped to gradients below that."""

    def forward(self, x: Signals) -> Signals:
        factor = self.factor(x)
        return x._replace(decay=x.decay * (factor if x.matrix else factor.clamp(max=1e4)))


class Whole(Candidate, register=False):
    """With a mean over all parameters at hand."""

    collective = True

    def collect(self, x: Signals) -> Sequence[Tensor]:
        return tensor_sum(x.variance_hat), tensor_size(x.theta)


class Global(Whole):
    """The mean over all parameters, as in the authors' code."""

    def factor(self, x: Signals) -> Tensor:
        mean = x.collected[0] / x.collected[1]
        return torch.where(mean > 0, mean.rsqrt(), 1.0)


class Floor(Whole, register=False):
    """A floor relative to the whole model's."""

    part: float

    def factor(self, x: Signals) -> Tensor:
        whole = x.collected[0] / x.collected[1]
        mean = torch.maximum(tensor_mean(x.variance_hat), whole * self.part**2)
        return torch.where(mean > 0, mean.rsqrt(), 1.0)


class FloorHundredth(Floor):
    """A hundredth."""

    part = 0.01


class Matrices(Candidate):
    """The paper's rule for tensors of more than one dimension; plain decay for vectors."""

    def forward(self, x: Signals) -> Signals:
        return super().forward(x) if x.matrix else x


CANDIDATES = (Literal, CapWhole, CapTenth, Fade, Unit, Root, Global, Matrices)


def config(name: str, lr: float) -> Config:
    """AdamW, full Ranger21, that without stable weight decay ("none"), or with a candidate in its place."""
    if name == "adamw":
        return Config(lr=lr)
    chosen: dict[str, object] = dict.fromkeys(RANGER21, True)
    if name != "ranger21":
        del chosen["stable_weight_decay"]
    if name not in ("ranger21", "none"):
        chosen[name] = True
    return Config(lr=lr, components=chosen)  # type: ignore[arg-type]

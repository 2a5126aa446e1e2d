"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) as the unswitched parts that open their stages.

With every component off these alone run, and the step is exactly AdamW.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from autoranger.components.core.component import Component, Signals, Stage


class Part(Component, register=False):
    """A part of AdamW. `provides` names the signal that it makes."""

    provides: ClassVar[str]


class FirstMoment(Part, register=False):
    """m ← β1·m + (1 − β1)·g."""

    stage = Stage.MOMENTUM
    provides = "mean"
    state = {"mean": torch.zeros_like}

    def forward(self, x: Signals) -> Signals:
        mean = torch.lerp(x.state["mean"], x.grad, 1 - x.beta1)
        return x._replace(mean=mean, bias1=1 - x.beta1**x.updates, state={"mean": mean})


class SecondMoment(Part, register=False):
    """v ← β2·v + (1 − β2)·g²."""

    stage = Stage.MOMENTUM
    provides = "variance"
    state = {"variance": torch.zeros_like}

    def forward(self, x: Signals) -> Signals:
        variance = torch.lerp(x.state["variance"], x.grad * x.grad, 1 - x.beta2)
        return x._replace(variance=variance, bias2=1 - x.beta2**x.updates, state={"variance": variance})


class Denominator(Part, register=False):
    """What m is divided by: √v̂ + ε, with both bias corrections folded into two scalars to save passes over memory."""

    stage = Stage.DENOMINATOR
    provides = "denominator"

    def forward(self, x: Signals) -> Signals:
        denominator = torch.addcmul(x.eps * x.bias1, x.variance.sqrt(), x.bias1 * x.bias2.rsqrt())
        return x._replace(denominator=denominator)


class Direction(Part, register=False):
    """u = m / denominator, which nobody needs from here on: its memory is free for what follows."""

    stage = Stage.DIRECTION
    provides = "direction"

    def forward(self, x: Signals) -> Signals:
        return x._replace(direction=x.mean / x.denominator, denominator=x.eps)


class Update(Part, register=False):
    """Direction and decoupled decay together: u + λ·decay·θ."""

    stage = Stage.UPDATE
    provides = "update"

    def forward(self, x: Signals) -> Signals:
        return x._replace(update=torch.addcmul(x.direction, x.theta, x.weight_decay * x.decay))


class Descent(Part, register=False):
    """θ ← θ − η·rate·update."""

    stage = Stage.WEIGHTS
    provides = "theta"

    def forward(self, x: Signals) -> Signals:
        return x._replace(theta=torch.addcmul(x.theta, x.update, -x.lr * x.rate))


ADAMW: tuple[type[Part], ...] = (FirstMoment, SecondMoment, Denominator, Direction, Update, Descent)

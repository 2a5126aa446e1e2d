"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) as the unswitched parts that open their stages.

With every component off these alone run, and the step is exactly AdamW.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage


class Part(Component, register=False):
    """A part of AdamW: what plays a role where no component does."""

    role: ClassVar[Role]


class FirstMoment(Part, register=False):
    """m ← β1·m + (1 − β1)·g."""

    stage = Stage.MOMENTUM
    role = Role.FIRST_MOMENT
    state = {"mean": torch.zeros_like}

    def forward(self, x: Signals) -> Signals:
        mean = torch.lerp(x.state["mean"], x.grad, 1 - x.beta1)
        return x._replace(mean=mean, state={"mean": mean})


class SecondMoment(Part, register=False):
    """v ← β2·v + (1 − β2)·g²."""

    stage = Stage.MOMENTUM
    role = Role.SECOND_MOMENT
    state = {"variance": torch.zeros_like}

    def forward(self, x: Signals) -> Signals:
        variance = torch.lerp(x.state["variance"], x.grad * x.grad, 1 - x.beta2)
        return x._replace(variance=variance, state={"variance": variance})


class Denominator(Part, register=False):
    """√v̂ + ε."""

    stage = Stage.DENOMINATOR
    role = Role.DENOMINATOR

    def forward(self, x: Signals) -> Signals:
        return x._replace(denominator=x.variance_hat.sqrt() + x.eps)


class Direction(Part, register=False):
    """u = m̂ / (√v̂ + ε)."""

    stage = Stage.DIRECTION
    role = Role.DIRECTION

    def forward(self, x: Signals) -> Signals:
        return x._replace(direction=x.mean_hat / x.denominator)


class Update(Part, register=False):
    """Direction and decoupled decay together: u + λ·decay·θ."""

    stage = Stage.UPDATE
    role = Role.UPDATE

    def forward(self, x: Signals) -> Signals:
        return x._replace(update=torch.addcmul(x.direction, x.theta, x.weight_decay * x.decay))


class Descent(Part, register=False):
    """θ ← θ − η·rate·update."""

    stage = Stage.WEIGHTS
    role = Role.WEIGHTS

    def forward(self, x: Signals) -> Signals:
        return x._replace(theta=torch.addcmul(x.theta, x.update, -x.lr * x.rate))


ADAMW: tuple[type[Part], ...] = (FirstMoment, SecondMoment, Denominator, Direction, Update, Descent)

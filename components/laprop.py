"""LaProp: Ziyin et al. 2020, arXiv 2002.04839, algorithm 1."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage


class Laprop(Component):
    """Divide the gradient by the denominator first, and take the momentum of that.

    m ← β1·m + (1 − β1)·g/(√v̂ + ε), u = m/(1 − β1^t): Adam divides the momentum.
    """

    stage = Stage.DIRECTION
    source = "arXiv 2002.04839"
    state = {"momentum": torch.zeros_like}
    replaces = frozenset({Role.FIRST_MOMENT, Role.DIRECTION})
    needs = frozenset({Role.SECOND_MOMENT, Role.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        scaled = torch.where(x.denominator > 0, x.grad / x.denominator, 0.0)
        momentum = torch.lerp(x.state["momentum"], scaled, 1 - x.beta1)
        return x._replace(direction=momentum / (1 - x.beta1**x.updates), state={"momentum": momentum})

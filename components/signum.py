"""Signum: Bernstein et al. 2018, arXiv 1802.04434, algorithm 2."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage


class Signum(Component):
    """Step along the sign of the momentum, with no second moment.

    m ← β1·m + (1 − β1)·g, u = sign(m). The best learning rate is several times smaller than AdamW's.
    """

    stage = Stage.DIRECTION
    source = "arXiv 1802.04434"
    state = {"momentum": torch.zeros_like}
    replaces = frozenset({Role.DIRECTION})
    bypasses = frozenset({Stage.MOMENTUM, Stage.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        momentum = torch.lerp(x.state["momentum"], x.grad, 1 - x.beta1)
        return x._replace(direction=momentum.sign(), state={"momentum": momentum})

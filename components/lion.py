"""Lion: Chen et al. 2023, arXiv 2302.06675, program 1."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class Lion(Component):
    """Step along the sign of a mixture of momentum and gradient, with no second moment.

    u = sign(β1·m + (1 − β1)·g), then m ← beta2·m + (1 − beta2)·g. The config's own β2 is not used. The best learning
    rate is three to ten times smaller than AdamW's, and the best weight decay as much larger.
    """

    stage = Stage.DIRECTION
    source = "arXiv 2302.06675"
    beta2 = Hyper(0.99, low=0.9, high=0.999, maximum=0.999999)
    state = {"momentum": torch.zeros_like}
    replaces = frozenset({Role.DIRECTION})
    bypasses = frozenset({Stage.MOMENTUM, Stage.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        momentum = x.state["momentum"]
        mixed = torch.lerp(momentum, x.grad, 1 - x.beta1)
        return x._replace(direction=mixed.sign(), state={"momentum": torch.lerp(momentum, x.grad, 1 - self.beta2)})

"""ADOPT: Taniguchi et al. 2024, arXiv 2411.02853, algorithm 2, in its clipped form."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class Adopt(Component):
    """Divide the gradient by the second moment of the steps before it, and only then take its momentum.

    v ← g² at the first update, which moves nothing and decays nothing. From then on
    m ← β1·m + (1 − β1)·clip(g/max(√v, ε), ±(t − 1)^exponent), u = m, v ← β2·v + (1 − β2)·g²: no bias is corrected.
    The authors use β2 = 0.9999 and ε = 1e-6, which the preset `adopt` has.
    """

    stage = Stage.DIRECTION
    source = "arXiv 2411.02853"
    exponent = Hyper(0.25, low=0.1, high=0.5, maximum=1.0)
    state = {"momentum": torch.zeros_like, "squares": torch.zeros_like}
    replaces = frozenset({Role.DIRECTION})
    bypasses = frozenset({Stage.MOMENTUM, Stage.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        first, squares = x.updates == 1, x.state["squares"]
        root = torch.maximum(squares.sqrt(), x.eps)
        limit = (x.updates - 1) ** self.exponent
        scaled = torch.where(root > 0, x.grad / root, 0.0)
        # Faster than a clamp, which looks for NaN.
        scaled = torch.where(scaled > limit, limit, torch.where(scaled < -limit, -limit, scaled))
        momentum = torch.where(first, 0.0, torch.lerp(x.state["momentum"], scaled, 1 - x.beta1))
        return x._replace(
            direction=momentum,
            decay=torch.where(first, 0.0, x.decay),
            state={
                "momentum": momentum,
                "squares": torch.lerp(squares, x.grad * x.grad, torch.where(first, 1.0, 1 - x.beta2)),
            },
        )

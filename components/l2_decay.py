"""L2 regularization in place of decoupled decay: compared by Loshchilov and Hutter, arXiv 1711.05101."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage


class L2Decay(Component):
    """Add the weight decay to the gradient, as the loss term λ/2·‖θ‖² would, instead of decoupling it.

    g ← g + λ·θ after all clipping and centralizing, and no decoupled decay. What Adam and SGD had before AdamW.
    """

    stage = Stage.GRADIENT
    source = "arXiv 1711.05101"
    replaces = frozenset({Role.DECAY})
    bypasses = frozenset({Stage.DECAY})
    decay_unit = 0.01  # it is divided by the root of the second moment, as the gradient is

    def forward(self, x: Signals) -> Signals:
        return x._replace(grad=torch.addcmul(x.grad, x.theta, x.weight_decay), decay=torch.zeros_like(x.decay))

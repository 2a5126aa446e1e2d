"""LARS, layer-wise adaptive rate scaling: You et al. 2017, arXiv 1708.03888, algorithm 1."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage
from autoranger.components.core.rows import tensor_norm


class LarsTrustRatio(Component):
    """Scale each tensor's gradient to a part `coefficient` of the tensor's norm, before momentum sees it.

    g ← (g + λ·θ) · coefficient·‖θ‖/(‖g‖ + λ‖θ‖), and no decoupled decay. Where a norm is 0 the factor is 1, for which
    the paper has no rule and this follows timm. The paper multiplies by the learning rate before the momentum, this
    (again as timm) after it: the same while the rate is constant.
    """

    stage = Stage.GRADIENT
    source = "arXiv 1708.03888"
    coefficient = Hyper(1e-3, low=1e-4, high=1e-1, log=True, positive=True)
    replaces = frozenset({Role.DECAY, Role.TRUST_RATIO})
    bypasses = frozenset({Stage.DECAY})

    def forward(self, x: Signals) -> Signals:
        weights, gradient = tensor_norm(x.theta), tensor_norm(x.grad)
        ratio = self.coefficient * weights / (gradient + x.weight_decay * weights)
        ratio = torch.where((weights > 0) & (gradient > 0), ratio, 1.0)
        decayed = torch.addcmul(x.grad, x.theta, x.weight_decay)
        return x._replace(grad=decayed * ratio, decay=torch.zeros_like(x.decay))

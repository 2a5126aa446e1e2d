"""Paratrooper's annealed trust ratio: Daniel Han, "State of the art optimizers"."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage
from autoranger.components.rectification import rectifier
from autoranger.components.trust_ratio import trust


class AnnealedTrustRatio(Component):
    """Let layer-wise trust ratios lengthen the first updates, and fade out as Adam's estimates get reliable.

    u ← u · max(1, min(R, ‖θ‖/‖u‖)) per tensor, 1 where a norm is 0; with RAdam's r and b = √(1 − β2^t)/(1 − β1^t),
    R = 1/(r·b) where ρ > 5, and `start` before that. R falls to 1, and with it the ratio.

    The author's listing shows the decay at two places, added to the gradient and to the direction: two readings of one
    algorithm, of which this follows the latter, decoupled and scaled by the ratio (`l2_decay` gives the former).
    """

    stage = Stage.UPDATE
    source = "https://danielhanchen.github.io/optimizers/sota%20optimizers.htm"
    start = Hyper(10.0, low=2.0, high=30.0, log=True, minimum=1.0)
    replaces = frozenset({Role.TRUST_RATIO})

    def forward(self, x: Signals) -> Signals:
        length, factor = rectifier(x.beta2, x.updates)
        limit = (1 - x.beta1**x.updates) / (factor * (1 - x.beta2**x.updates).sqrt())
        limit = torch.where(length > 5, limit, self.start)
        return x._replace(update=x.update * torch.minimum(trust(x), limit).clamp(min=1))

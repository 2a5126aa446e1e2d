"""Clipping of the update (StableAdamW): Wortsman et al. 2023, arXiv 2304.13013, algorithm 2."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage
from autoranger.components.core.rows import tensor_mean


class UpdateClipping(Component):
    """Take a shorter step where gradients are much larger than the second moment expects.

    Per tensor, with RMS = √mean(g²/max(v̂, ε²)): where RMS > 1, direction and decay are divided by it.
    """

    stage = Stage.UPDATE
    source = "arXiv 2304.13013"
    needs = frozenset({Role.SECOND_MOMENT})

    def forward(self, x: Signals) -> Signals:
        expected = torch.maximum(x.variance_hat, x.eps * x.eps)
        surprise = tensor_mean(torch.where(expected > 0, x.grad * x.grad / expected, 0.0)).sqrt()
        return x._replace(update=x.update / surprise.clamp(min=1))

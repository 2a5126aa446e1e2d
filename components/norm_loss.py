"""Norm loss: Georgiou et al. 2021, arXiv 2103.06583, equation 8."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Signals, Stage
from autoranger.components.core.rows import row_norm


class NormLoss(Component):
    """Weight decay towards rows of unit norm instead of towards zero.

    Decay factor × (1 − 1/‖θ‖) with the row's norm. A row of zeros has no direction to grow in: its factor stays 1.

    However small a row is, a step changes its norm by the part η·λ of the way to 1 (with `stable_weight_decay` by the
    part that it says), which overshoots where a plain decay would, too. A vector is one row and a row of one number
    goes to ±1, as in the code that Ranger21 comes with: the paper speaks of kernels and matrices only.
    """

    stage = Stage.DECAY
    source = "arXiv 2103.06583"

    def forward(self, x: Signals) -> Signals:
        norm = row_norm(x.theta)
        return x._replace(decay=x.decay * (1 - torch.where(norm > 0, norm.reciprocal(), 0.0)))

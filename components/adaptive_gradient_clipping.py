"""Adaptive gradient clipping: Brock et al. 2021, arXiv 2102.06171, equation 3."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Signals, Stage
from autoranger.components.core.rows import row_norm


class AdaptiveGradientClipping(Component):
    """Scale a row's gradient down to at most `clip` times the row's own norm.

    Per row: where ‖g‖ > clip·max(‖θ‖, eps), g ← g · clip·max(‖θ‖, eps) / ‖g‖. A vector is one row, as in the authors'
    code, and a row of one number is clipped by itself; Adam's denominator makes up for what is clipped in every step.
    """

    stage = Stage.GRADIENT
    source = "arXiv 2102.06171"
    clip = Hyper(1e-2, low=1e-3, high=1e-1, log=True)
    eps = Hyper(1e-3, low=1e-4, high=1e-2, log=True, positive=True)

    def forward(self, x: Signals) -> Signals:
        norm = row_norm(x.grad)
        limit = self.clip * torch.maximum(row_norm(x.theta), self.eps)
        return x._replace(grad=x.grad * torch.where(norm > limit, limit / norm, 1.0))

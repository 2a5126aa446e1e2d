"""Cautious optimizers: Liang et al. 2024, arXiv 2411.16085, algorithm 1."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Signals, Stage
from autoranger.components.core.rows import tensor_mean

LEAST = 1e-3
"""What the mean of a mask counts as at least."""


class CautiousMask(Component):
    """Move only the numbers whose direction agrees in sign with the gradient of this step, and those further.

    With φ = 1 where u·g > 0, else 0: u ← u · φ/max(mean(φ), 0.001), the mean over each tensor. Weight decay is not
    masked. The paper divides by (sum(φ) + 1)/n instead of the bounded mean, which the authors' code and timm have, and
    this follows those.
    """

    stage = Stage.DIRECTION
    source = "arXiv 2411.16085"

    def forward(self, x: Signals) -> Signals:
        agree = torch.where(x.direction * x.grad > 0, 1.0, torch.zeros_like(x.grad))
        return x._replace(direction=x.direction * (agree / tensor_mean(agree).clamp(min=LEAST)))

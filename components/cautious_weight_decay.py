"""Cautious weight decay: Chen et al. 2025, arXiv 2510.12402, algorithm 1."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage


class CautiousWeightDecay(Component):
    """Decay only the numbers that the step moves towards zero anyway.

    Decay factor × 1 where u·θ ≥ 0, else 0; u is the direction, which is subtracted.
    """

    stage = Stage.DECAY
    source = "arXiv 2510.12402"
    needs = frozenset({Role.DIRECTION})

    def forward(self, x: Signals) -> Signals:
        return x._replace(decay=torch.where(x.direction * x.theta >= 0, x.decay, 0.0))

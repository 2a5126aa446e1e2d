"""Cooldown by a square root: Hägele et al. 2024, arXiv 2405.18392, section 3."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class SquareRootCooldown(Component):
    """Keep the learning rate flat, then lower it over the last `fraction` of training, fast at first.

    With s = max(0, (t − (1 − fraction)·T)/(fraction·T)): rate factor 1 − √s, and zero for steps beyond T.
    """

    stage = Stage.RATE
    source = "arXiv 2405.18392"
    fraction = Hyper(0.2, low=0.1, high=1.0, maximum=1.0, positive=True)
    replaces = frozenset({Role.ANNEALING})
    needs_total_steps = True

    def forward(self, x: Signals) -> Signals:
        progress = torch.clamp(1 - (x.total - x.step) / (self.fraction * x.total), 0, 1)
        return x._replace(rate=torch.minimum(x.rate, 1 - progress.sqrt()))

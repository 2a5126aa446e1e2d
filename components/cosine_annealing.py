"""Cosine annealing: Loshchilov and Hutter 2016, arXiv 1608.03983, equation 5, without restarts."""

from __future__ import annotations

import math

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class CosineAnnealing(Component):
    """Lower the learning rate along half a cosine over the whole training, to the part `floor` of it.

    Rate factor floor + (1 − floor)·(1 + cos(π·(t − 1)/T))/2. The first step has the full rate and the one after step T
    would have the floor, as in torch.optim.lr_scheduler.CosineAnnealingLR; steps beyond T stay there.
    """

    stage = Stage.RATE
    source = "arXiv 1608.03983"
    floor = Hyper(0.0, low=0.0, high=0.1, maximum=1.0)
    replaces = frozenset({Role.ANNEALING})
    needs_total_steps = True

    def forward(self, x: Signals) -> Signals:
        progress = torch.clamp((x.step - 1) / x.total, max=1)
        factor = self.floor + (1 - self.floor) * (1 + torch.cos(math.pi * progress)) / 2
        return x._replace(rate=torch.minimum(x.rate, factor))

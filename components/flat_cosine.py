"""Flat, then cosine: fastai's `fit_flat_cos`."""

from __future__ import annotations

import math

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class FlatCosine(Component):
    """Keep the learning rate flat, then lower it along half a cosine over the last `fraction` of training.

    With s = max(0, ((t − 1)/T − (1 − fraction))/fraction): rate factor floor + (1 − floor)·(1 + cos(π·s))/2. As in
    fastai, the step after step T would have the floor; steps beyond T stay there. The fraction is Ranger's 0.28, where
    fastai has 0.25.
    """

    stage = Stage.RATE
    source = "https://docs.fast.ai/callback.schedule.html"
    fraction = Hyper(0.28, low=0.1, high=1.0, maximum=1.0, positive=True)
    floor = Hyper(1e-5, low=0.0, high=0.1, maximum=1.0)
    replaces = frozenset({Role.ANNEALING})
    needs_total_steps = True

    def forward(self, x: Signals) -> Signals:
        progress = torch.clamp(((x.step - 1) / x.total - (1 - self.fraction)) / self.fraction, 0, 1)
        factor = self.floor + (1 - self.floor) * (1 + torch.cos(math.pi * progress)) / 2
        return x._replace(rate=torch.minimum(x.rate, factor))

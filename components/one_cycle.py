"""The 1cycle policy: Smith 2018, arXiv 1803.09820, in the two-phase form of torch.optim.lr_scheduler.OneCycleLR."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class OneCycle(Component):
    """Raise the learning rate to its peak while β1 falls, then lower it to almost nothing while β1 rises.

    The rate goes from η/div_factor to η over the first `fraction` of training and from there to
    η/(div_factor·final_div_factor), β1 from max_momentum to base_momentum and back, both along half cosines. The
    config's own β1 is not used. Steps and defaults are those of OneCycleLR: the first step has the rate to start from
    and step T the one to end at, where steps beyond T stay.
    """

    stage = Stage.RATE
    source = "arXiv 1803.09820"
    fraction = Hyper(0.3, low=0.1, high=0.5, maximum=1.0, positive=True)
    div_factor = Hyper(25.0, low=5.0, high=100.0, log=True, minimum=1.0)
    final_div_factor = Hyper(1e4, low=1e2, high=1e6, log=True, minimum=1.0)
    base_momentum = Hyper(0.85, low=0.7, high=0.9, maximum=0.999)
    max_momentum = Hyper(0.95, low=0.9, high=0.99, maximum=0.999)
    replaces = frozenset({Role.ANNEALING, Role.WARMUP})
    needs_total_steps = True

    def forward(self, x: Signals) -> Signals:
        now, peak, end = x.step - 1, self.fraction * x.total - 1, x.total - 1
        rising = now <= peak
        # The lower bound serves trainings of one or two steps, in which a phase may be empty.
        up = now / peak.clamp(min=1e-9)
        down = ((now - peak) / (end - peak).clamp(min=1e-9)).clamp(max=1)
        first, last = 1 / self.div_factor, 1 / (self.div_factor * self.final_div_factor)
        rate = torch.where(rising, along(first, 1, up), along(1, last, down))
        low, high = self.base_momentum, self.max_momentum
        beta1 = torch.where(rising, along(high, low, up), along(low, high, down))
        return x._replace(rate=torch.minimum(x.rate, rate), beta1=beta1)


def along(start: Tensor | float, end: Tensor | float, progress: Tensor) -> Tensor:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + torch.cos(math.pi * progress)) / 2

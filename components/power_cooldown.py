"""Cooldown by a power: the polynomial schedules of torch.optim.lr_scheduler.PolynomialLR."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class PowerCooldown(Component):
    """Keep the learning rate flat, then lower it by a power over the last `fraction` of training.

    Rate factor min(1, (T − t)/(fraction·T))^power, and zero for steps beyond T. `power` 1 is `explore_exploit`; with
    `fraction` 1 it is torch.optim.lr_scheduler.PolynomialLR, one step ahead.
    """

    stage = Stage.RATE
    source = "arXiv 1606.00915"
    fraction = Hyper(1.0, low=0.1, high=1.0, maximum=1.0, positive=True)
    power = Hyper(2.0, low=0.5, high=4.0, log=True, positive=True, maximum=100.0)
    replaces = frozenset({Role.ANNEALING})
    needs_total_steps = True

    def forward(self, x: Signals) -> Signals:
        left = torch.clamp((x.total - x.step) / (self.fraction * x.total), 0, 1)
        return x._replace(rate=torch.minimum(x.rate, left**self.power))

"""Linear warmup: Ma and Yarats 2019, arXiv 1910.04209, with the fraction of Ranger21, arXiv 2106.13731."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class LinearWarmup(Component):
    """Raise the learning rate linearly from zero over the first `fraction` of training.

    Rate factor min(1, max((1 − β2)·t/2, t/(fraction·T))): long runs need no more than 2/(1 − β2) steps.
    """

    stage = Stage.RATE
    source = "arXiv 1910.04209"
    fraction = Hyper(0.22, low=0.05, high=0.5, maximum=1.0, positive=True)
    replaces = frozenset({Role.WARMUP})
    needs_total_steps = True

    def forward(self, x: Signals) -> Signals:
        factor = torch.maximum((1 - x.beta2) * x.step / 2, x.step / (self.fraction * x.total))
        return x._replace(rate=torch.minimum(x.rate, factor))

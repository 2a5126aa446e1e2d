"""Nesterov's momentum in Adam (NAdam): Dozat 2016."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage


class Nesterov(Component):
    """Look one step ahead: let the gradient of this step count once more in the first moment that is used.

    m̂ = (β1·m + (1 − β1)·g)/(1 − β1^t). Dozat's algorithm, and torch.optim.NAdam, let β1 grow by a schedule and correct
    the bias of both terms by it; this follows the plain form of timm's NAdamW and of the AlgoPerf benchmark.
    """

    stage = Stage.MOMENTUM
    source = "https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ"
    replaces = frozenset({Role.FIRST_MOMENT})
    needs = frozenset({Role.FIRST_MOMENT})

    def forward(self, x: Signals) -> Signals:
        return x._replace(mean=torch.lerp(x.mean, x.grad, 1 - x.beta1))

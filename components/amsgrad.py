"""AMSGrad: Reddi et al. 2018, arXiv 1904.09237, algorithm 2."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Signals, Stage


class Amsgrad(Component):
    """Never let the second moment fall.

    v_max ← max(v_max, v), v̂ = v_max/(1 − β2^t). The paper has no bias correction; with it, dividing the maximum, is how
    torch.optim and most others do it, and this follows them. Positive-negative momentum has this built in.
    """

    stage = Stage.MOMENTUM
    source = "arXiv 1904.09237"
    state = {"max_variance": torch.zeros_like}

    def forward(self, x: Signals) -> Signals:
        variance = torch.maximum(x.state["max_variance"], x.variance)
        return x._replace(variance=variance, state={"max_variance": variance})

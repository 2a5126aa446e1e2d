"""Softplus denominator (SAdam): Tong et al. 2019, arXiv 1908.00700, as in the authors' PyTorch code of Ranger21."""

from __future__ import annotations

from torch.nn import functional

from autoranger.components.core.component import Component, Hyper, Signals, Stage


class SoftplusDenominator(Component):
    """Smooth the denominator, so that parameters with tiny gradients do not take huge steps.

    √v̂ + ε ← log(1 + exp(β·(√v̂ + ε)))/β, which is never below log(2)/β. SAdam applies it to √v before the correction of
    bias; Ranger21 after it, and this follows Ranger21.
    """

    stage = Stage.DENOMINATOR
    source = "arXiv 1908.00700"
    beta = Hyper(50.0, low=5.0, high=500.0, log=True, positive=True)

    def forward(self, x: Signals) -> Signals:
        return x._replace(denominator=functional.softplus(x.denominator * self.beta) / self.beta)

"""MARS: Yuan et al. 2024, arXiv 2411.10438, algorithm 2, in its approximate form."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Signals, Stage
from autoranger.components.core.rows import tensor_norm


class Mars(Component):
    """Reduce the variance of a gradient by a part of what has changed since the step before.

    c = g + gamma·β1/(1 − β1)·(g − g_before), g ← c/max(1, ‖c‖), the norm of each tensor. The gradient before the first
    is 0. Vectors are left alone, as in the authors' code. The exact form, with the gradient before on this step's
    batch, needs two passes through the model. The authors use lr 3e-3 and β = (0.95, 0.99), which the preset `mars`
    has.
    """

    stage = Stage.GRADIENT
    source = "arXiv 2411.10438"
    gamma = Hyper(0.025, low=0.005, high=0.1, log=True)
    state = {"before": torch.zeros_like}

    def forward(self, x: Signals) -> Signals:
        if not x.matrix:
            return x
        change = (x.grad - x.state["before"]) * (self.gamma * x.beta1 / (1 - x.beta1))
        corrected = x.grad + change
        return x._replace(grad=corrected / tensor_norm(corrected).clamp(min=1), state={"before": x.grad})

"""Gradient normalization: as in the authors' PyTorch code of Ranger21."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Signals, Stage
from autoranger.components.core.rows import tensor_size, tensor_std


class GradientNormalization(Component):
    """Divide a gradient by its standard deviation.

    Per tensor of more than two numbers: g ← g / (std(g) + eps), after gradient centralization. The standard deviation
    is over the whole tensor, with n − 1 in its denominator, as in the code that Ranger21 comes with (it has no paper).
    """

    stage = Stage.GRADIENT
    source = "https://github.com/lessw2020/Ranger21"
    eps = Hyper(1e-8, low=1e-10, high=1e-4, log=True, positive=True)

    def forward(self, x: Signals) -> Signals:
        deviation = torch.where(tensor_size(x.grad) > 2, tensor_std(x.grad) + self.eps, 1.0)
        return x._replace(grad=x.grad / deviation)

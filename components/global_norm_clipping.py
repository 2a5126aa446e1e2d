"""Clipping of the global norm: Pascanu et al. 2012, arXiv 1211.5063, algorithm 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Signals, Stage
from autoranger.components.core.rows import tensor_sum


class GlobalNormClipping(Component):
    """Scale all gradients down together to at most the norm `max_norm`.

    Where ‖g‖ > max_norm, with the norm over all parameters of the model, g ← g · max_norm/‖g‖. It acts first, on the
    gradient as backward leaves it. `torch.nn.utils.clip_grad_norm_` adds 1e-6 to the norm; the paper and this do not.
    """

    stage = Stage.GRADIENT
    source = "arXiv 1211.5063"
    max_norm = Hyper(1.0, low=0.1, high=10.0, log=True, positive=True)
    collective = True

    def collect(self, x: Signals) -> Sequence[Tensor]:
        return (tensor_sum(x.grad * x.grad),)

    def forward(self, x: Signals) -> Signals:
        norm = x.collected[0].sqrt()
        return x._replace(grad=x.grad * torch.where(norm > self.max_norm, self.max_norm / norm, 1.0))

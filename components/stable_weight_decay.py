"""Stable weight decay: Xie et al. 2020, arXiv 2011.11152, algorithm 3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoranger.components.component import Component, Hyper, Settings, Signals, Stage
from autoranger.components.rows import tensor_mean, tensor_size, tensor_sum


class StableWeightDecay(Component):
    """Divide the weight decay by the root of the mean second moment, so that it keeps pace with the step size.

    Decay factor × 1/√mean(v̂). The mean is over each tensor (`scope = "tensor"`, the paper) or over all parameters
    (`"global"`, the authors' code). Where all gradients have been zero there is no step to keep pace with: factor 1.
    Where their root mean square is below η·λ the decay overshoots zero, as the rule has it: lower λ there.
    """

    stage = Stage.DECAY
    source = "arXiv 2011.11152"
    needs = frozenset({"variance"})
    scope = Hyper("tensor", choices=("tensor", "global"))

    def __init__(self, settings: Sequence[Settings | None], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(settings, dtype, device)
        self.collective = any(chosen is not None and chosen.get("scope") == "global" for chosen in settings)

    def collect(self, x: Signals) -> Sequence[Tensor]:
        return tensor_sum(x.variance) / x.bias2, tensor_size(x.theta)

    def forward(self, x: Signals) -> Signals:
        mean = tensor_mean(x.variance) / x.bias2
        if self.collective:
            total, size = x.collected
            mean = torch.where(self.scope > 0, total / size, mean)
        return x._replace(decay=x.decay * torch.where(mean > 0, mean.rsqrt(), 1.0))

"""Stable weight decay: Xie et al. 2020, arXiv 2011.11152, algorithm 3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Settings, Signals, Stage
from autoranger.components.core.rows import tensor_mean, tensor_size, tensor_sum


class StableWeightDecay(Component):
    """Divide the weight decay by the root of the mean second moment, so that it keeps pace with the step size.

    Decay factor × 1/√mean(v̂). The mean is over each tensor (`scope = "tensor"`, the paper) or over all parameters
    (`"global"`, the authors' code). Where all gradients have been zero there is no step to keep pace with: factor 1.

    A step takes the part s = η·λ/√mean(v̂) of the way to where the decay leads: to zero or, with `norm_loss`, to rows of
    unit norm. The paper's rule has no limit, overshoots where s > 1, and explodes where gradients are only rounding, as
    those of the bias of an attention's keys or of one before batch normalization (studies/13_bounded_decay). So it is
    left there: where s > `bound`, s becomes bound²/s, and the less gradient there is, the less decay. Up to `bound` it
    is the paper's to the bit, and a `bound` of 1e30 is as good as none.
    """

    stage = Stage.DECAY
    source = "arXiv 2011.11152"
    needs = frozenset({Role.SECOND_MOMENT})
    decay_unit = 0.01  # gradients of a hundredth are common
    scope = Hyper("tensor", choices=("tensor", "global"))
    bound = Hyper(1.0, low=0.01, high=1.0, log=True, positive=True)

    def __init__(self, settings: Sequence[Settings | None], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(settings, dtype, device)
        self.collective = any(chosen is not None and chosen.get("scope") == "global" for chosen in settings)

    def collect(self, x: Signals) -> Sequence[Tensor]:
        return tensor_sum(x.variance_hat), tensor_size(x.theta)

    def forward(self, x: Signals) -> Signals:
        mean = tensor_mean(x.variance_hat)
        if self.collective:
            total, size = x.collected
            mean = torch.where(self.scope > 0, total / size, mean)
        factor = torch.where(mean > 0, mean.rsqrt(), 1.0)
        most = self.bound / (x.lr * x.rate * x.weight_decay)
        return x._replace(decay=x.decay * torch.minimum(factor, most * (most / factor)))

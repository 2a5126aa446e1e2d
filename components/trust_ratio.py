"""Layer-wise trust ratio (LAMB): You et al. 2019, arXiv 1904.00962, algorithm 2."""

from __future__ import annotations

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage
from autoranger.components.core.rows import tensor_norm


class TrustRatio(Component):
    """Make each tensor's update as long as the tensor itself, so that the learning rate is relative.

    u ← u · min(max(‖θ‖/‖u‖, lower), upper), per tensor; u is direction and decay together. The ratio is 1 where a norm
    is 0.

    Sources disagree. LAMB's experiments have no clamps (an `upper` of 1e9 is as good as none), RangerLars has [0, 10],
    Paratrooper's author preferred [1, 10]. Widespread code for LAMB clamps ‖θ‖ to 10 instead or leaves out Adam's
    correction of bias, for RangerLars it divides by ‖θ − η·u‖, which is hardly a ratio: this follows LAMB's paper.
    """

    stage = Stage.UPDATE
    source = "arXiv 1904.00962"
    lower = Hyper(0.0, low=0.0, high=1.0)
    upper = Hyper(10.0, low=1.0, high=30.0, log=True)
    replaces = frozenset({Role.TRUST_RATIO})

    def forward(self, x: Signals) -> Signals:
        return x._replace(update=x.update * torch.clamp(trust(x), self.lower, self.upper))


def trust(x: Signals) -> Tensor:
    """‖θ‖/‖update‖ of each tensor, 1 where a norm is 0."""
    weights, update = tensor_norm(x.theta), tensor_norm(x.update)
    return torch.where((weights > 0) & (update > 0), weights / update, 1.0)

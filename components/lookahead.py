"""Lookahead: Zhang et al. 2019, arXiv 1907.08610, algorithm 1."""

from __future__ import annotations

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class Lookahead(Component):
    """Every `k` steps move slow weights φ a part `alpha` of the way to θ, and restart from there.

    φ ← φ + alpha·(θ − φ), θ ← φ. The slow weights start at the parameters as the first step finds them, and anew where
    others are loaded.
    """

    stage = Stage.WEIGHTS
    source = "arXiv 1907.08610"
    k = Hyper(5, low=2, high=20, log=True, minimum=1)
    alpha = Hyper(0.5, low=0.2, high=0.9, maximum=1.0)
    state = {"slow": torch.clone}
    replaces = frozenset({Role.POINT})

    def due(self, x: Signals) -> Tensor:
        return x.updates % self.k == 0

    def forward(self, x: Signals) -> Signals:
        slow = torch.lerp(x.state["slow"], x.theta, self.alpha)
        return x._replace(theta=slow, state={"slow": slow})

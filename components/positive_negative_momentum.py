"""Positive-negative momentum (AdaPNM): Xie et al. 2021, arXiv 2103.17182, algorithm 3."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage
from autoranger.components.core.rows import choose


class PositiveNegativeMomentum(Component):
    """Two momenta of alternate steps, one added and one subtracted, which scales up the gradient noise.

    p_t = β1²·p_{t−2} + (1 − β1²)·g, m = [(1 + β0)·p_t − β0·p_{t−1}] / √((1 + β0)² + β0²), m̂ = m / (1 − β1^t): the root
    keeps the noise's norm. v_max ← max(v_max, v_t), v̂ = v_max / (1 − β2^t).
    The AdaPNM original has β0 = 1.
    """

    stage = Stage.MOMENTUM
    source = "arXiv 2103.17182"
    beta0 = Hyper(0.9, low=0.1, high=2.0)
    state = {"odd": torch.zeros_like, "even": torch.zeros_like, "max_variance": torch.zeros_like}
    replaces = frozenset({Role.FIRST_MOMENT})

    def forward(self, x: Signals) -> Signals:
        now_odd, odd, even = x.updates % 2 == 1, x.state["odd"], x.state["even"]
        now = torch.lerp(choose(now_odd, odd, even), x.grad, 1 - x.beta1**2)
        before = choose(now_odd, even, odd)
        norm = torch.sqrt((1 + self.beta0) ** 2 + self.beta0**2)
        variance = torch.maximum(x.state["max_variance"], x.variance)
        return x._replace(
            mean=torch.lerp(before, now, 1 + self.beta0) / norm,
            variance=variance,
            state={
                "odd": choose(now_odd, now, odd),
                "even": choose(now_odd, even, now),
                "max_variance": variance,
            },
        )

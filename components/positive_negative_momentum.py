"""Positive-negative momentum (AdaPNM): Xie et al. 2021, arXiv 2103.17182, algorithm 3."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Signals, Stage
from autoranger.components.core.rows import choose


class PositiveNegativeMomentum(Component):
    """Two momenta of alternate steps, one added and one subtracted, which scales up the gradient noise.

    m_t = β1²·m_{t−2} + (1 − β1²)·g;  v_max ← max(v_max, v_t), v̂ = v_max / (1 − β2^t);
    m̂ = [(1 + β0)·m_t − β0·m_{t−1}] / (1 − β1^t), divided by √((1 + β0)² + β0²) to keep the noise's norm.
    The AdaPNM original has β0 = 1.
    """

    stage = Stage.MOMENTUM
    source = "arXiv 2103.17182"
    beta0 = Hyper(0.9, low=0.1, high=2.0)
    state = {"odd": torch.zeros_like, "even": torch.zeros_like, "max_variance": torch.zeros_like}
    replaces = frozenset({"mean"})

    def forward(self, x: Signals) -> Signals:
        now_odd, odd, even = x.updates % 2 == 1, x.state["odd"], x.state["even"]
        now = torch.lerp(choose(now_odd, odd, even), x.grad, 1 - x.beta1**2)
        before = choose(now_odd, even, odd)
        positive = 1 + self.beta0
        norm = torch.sqrt(positive**2 + self.beta0**2)
        variance = torch.maximum(x.state["max_variance"], x.variance)
        return x._replace(
            # m̂ / (1 + β0), and so is what it is divided by: one pass over memory less.
            mean=torch.addcmul(now, before, -self.beta0 / positive),
            bias1=(1 - x.beta1**x.updates) * norm / positive,
            variance=variance,
            state={
                "odd": choose(now_odd, now, odd),
                "even": choose(now_odd, even, now),
                "max_variance": variance,
            },
        )

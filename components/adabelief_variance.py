"""AdaBelief: Zhuang et al. 2020, arXiv 2010.07468, algorithm 2."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage


class AdabeliefVariance(Component):
    """Let the second moment measure how far gradients are from the first one, instead of from zero.

    v ← β2·v + (1 − β2)·(g − m)² + ε, with the m of this step. ε enters twice, here and in the denominator, in the paper
    and in the authors' code alike. m is Adam's, also where positive-negative momentum takes its place in the update:
    what is believed is the plain mean. (The authors' package turns RAdam's rectification on by default, which the paper
    never uses: switch on `rectification` for that.)
    """

    stage = Stage.MOMENTUM
    source = "arXiv 2010.07468"
    state = {"variance": torch.zeros_like}
    replaces = frozenset({Role.SECOND_MOMENT})
    needs = frozenset({Role.FIRST_MOMENT})

    def forward(self, x: Signals) -> Signals:
        surprise = x.grad - x.mean
        variance = torch.lerp(x.state["variance"], surprise * surprise, 1 - x.beta2) + x.eps
        return x._replace(variance=variance, state={"variance": variance})

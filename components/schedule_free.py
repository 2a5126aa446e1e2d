"""Schedule-Free AdamW: Defazio et al. 2024, arXiv 2405.15682, algorithm 1, and version 1.4 of the authors' code."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class ScheduleFree(Component):
    """Take gradients between the weights z that move and their average x, which is what to evaluate: no schedule.

    With s = min(1, t/`warmup`) and u = g/(√v̂ + ε) + λ·decay·y: z ← z − η·s·u, x ← (1 − c)·x + c·z, where
    c = s²/Σs² over the updates so far, and the weights that are trained are y = (1 − beta)·z + beta·x.
    `optimizer.eval()` puts x in the place of y. beta is the momentum, so that β1 is not used. `warmup` is in steps (0:
    no warmup); the authors advise some. The best learning rate is one to ten times AdamW's.

    z is kept, and x follows from y and z. The bias of v is corrected as in the authors' code, which the paper has in η.
    """

    stage = Stage.UPDATE
    source = "arXiv 2405.15682"
    beta = Hyper(0.9, low=0.8, high=0.98, maximum=0.999999, positive=True)
    warmup = Hyper(0, low=0, high=200, minimum=0)
    state = {"base": torch.clone}
    replaces = frozenset(
        {Role.FIRST_MOMENT, Role.DIRECTION, Role.UPDATE, Role.WARMUP, Role.ANNEALING, Role.POINT, Role.EVALUATION}
    )
    bypasses = frozenset({Stage.DIRECTION, Stage.UPDATE})
    needs = frozenset({Role.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        y, z, rate = x.theta, x.state["base"], x.lr * x.rate
        length = torch.clamp(self.warmup, min=1)
        warming = torch.minimum(x.updates, length)
        size = warming / length
        squares = warming * (warming + 1) * (2 * warming + 1) / (6 * length * length) + (x.updates - warming)
        new = torch.where(rate > 0, size * size / squares, 0.0)
        update = torch.addcmul(x.grad / x.denominator, y, x.weight_decay * x.decay)
        towards = torch.where(rate > 0, new / rate, 0.0)
        return x._replace(
            update=size * (1 - self.beta * (1 - new)) * update + towards * (y - z),
            state={"base": torch.addcmul(z, update, -rate * size)},
        )

    def evaluated(self, theta: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return torch.lerp(state["base"], theta, 1 / self.beta)

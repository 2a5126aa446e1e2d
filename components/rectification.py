"""Rectification of the adaptive rate (RAdam): Liu et al. 2019, arXiv 1908.03265, algorithm 2."""

from __future__ import annotations

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class Rectification(Component):
    """Divide by the second moment only once it has seen enough gradients, and less boldly while they are few.

    With ρ∞ = 2/(1 − β2) − 1 and ρ = ρ∞ − 2t·β2^t/(1 − β2^t): where ρ > `threshold`, the direction is
    r · m̂ · √(1 − β2^t)/(√v + ε), r = √[(ρ − 4)(ρ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρ)]; before that it is m̂.

    Sources disagree. The threshold is 4 in the paper and 5 in the authors' code and torch.optim, which this follows.
    Before rectification the paper and torch.optim take a step along m̂ (`before = "momentum"`); the authors' code does
    so as an option, Ranger's always, and its own default is to leave the parameters alone, decay included
    (`"nothing"`). ε is added to √v before v's bias is corrected, as in both codes (the paper has none);
    `epsilon = "inside"` divides by √(v + ε), as Paratrooper does.
    """

    stage = Stage.DENOMINATOR
    source = "arXiv 1908.03265"
    threshold = Hyper(5.0, minimum=4.0)
    before = Hyper("momentum", choices=("momentum", "nothing"))
    epsilon = Hyper("outside", choices=("outside", "inside"))
    replaces = frozenset({Role.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        length, factor = rectifier(x.beta2, x.updates)
        rectified, resting = length > self.threshold, self.before > 0
        inside = torch.where(self.epsilon > 0, x.eps, 0.0)
        root = (x.variance + inside).sqrt() + (x.eps - inside)
        unrectified = torch.where(resting, torch.inf, 1.0)
        return x._replace(
            denominator=torch.where(rectified, root / (factor * (1 - x.beta2**x.updates).sqrt()), unrectified),
            decay=torch.where(rectified | ~resting, x.decay, 0.0),
        )


def rectifier(beta2: Tensor, updates: Tensor) -> tuple[Tensor, Tensor]:
    """ρ, how many gradients the second moment amounts to, and r (a number only where ρ > 4)."""
    longest = 2 / (1 - beta2) - 1
    # The second term is 2t·β2^t/(1 − β2^t), written so that float32 does not lose it near β2^t = 1.
    length = longest - 2 * updates / torch.expm1(-updates * beta2.log())
    factor = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return length, factor.sqrt()

"""SGD with momentum: Sutskever et al. 2013, in the form of torch.optim.SGD."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class SgdMomentum(Component):
    """Step along a sum of gradients, with no second moment.

    b ← β1·b + g, direction b; with `nesterov = "yes"` the direction is g + β1·b. The learning rate multiplies the
    direction, as in torch.optim, not the gradient, as in the paper: the same while the rate is constant.
    """

    stage = Stage.DIRECTION
    source = "https://proceedings.mlr.press/v28/sutskever13.html"
    nesterov = Hyper("no", choices=("no", "yes"))
    state = {"velocity": torch.zeros_like}
    replaces = frozenset({Role.DIRECTION})
    bypasses = frozenset({Stage.MOMENTUM, Stage.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        velocity = torch.addcmul(x.grad, x.state["velocity"], x.beta1)
        ahead = torch.addcmul(x.grad, velocity, x.beta1)
        return x._replace(direction=torch.where(self.nesterov > 0, ahead, velocity), state={"velocity": velocity})

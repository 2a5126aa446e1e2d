"""MADGRAD: Defazio and Jelassi 2021, arXiv 2101.11075, algorithm 1, and the authors' code."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage


class Madgrad(Component):
    """Dual averaging: step from the start along all gradients so far, divided by the cube root of their squares.

    With w = (η + ε)·√t: s ← s + w·g, ν ← ν + w·g², z = θ_0 − s/(∛ν + ε), θ ← β1·θ + (1 − β1)·z.

    The ε that is added to η (where η > 0) is not in the paper, but in the authors' code and all that follow it, and
    this does too. t counts the steps of the optimizer. The move towards z is handed on as a direction in units of η,
    so that trust ratios and Lookahead compose with it; hence nothing moves where a schedule has η at 0. As published,
    decay belongs into the gradient: combine it with `l2_decay`.
    """

    stage = Stage.DIRECTION
    source = "arXiv 2101.11075"
    state = {"start": torch.clone, "sum": torch.zeros_like, "squares": torch.zeros_like}
    replaces = frozenset({Role.DIRECTION})
    bypasses = frozenset({Stage.MOMENTUM, Stage.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        lr = x.lr * x.rate
        weight = torch.where(lr > 0, lr + x.eps, 0.0) * x.step.sqrt()
        total = torch.addcmul(x.state["sum"], x.grad, weight)
        squares = torch.addcmul(x.state["squares"], x.grad * x.grad, weight)
        root = squares.pow(1 / 3) + x.eps
        towards = x.theta - x.state["start"] + torch.where(root > 0, total / root, 0.0)
        return x._replace(
            direction=towards * torch.where(lr > 0, (1 - x.beta1) / lr, 0.0),
            state={"start": x.state["start"], "sum": total, "squares": squares},
        )

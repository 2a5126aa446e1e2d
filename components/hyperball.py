"""Hyperball: Wen et al. 2025, "Fantastic pretraining optimizers and where to find them II"."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Role, Signals, Stage
from autoranger.components.core.rows import tensor_norm


class Hyperball(Component):
    """Keep the norm of each matrix as it is, and make the learning rate the length of a step relative to it.

    Per tensor, with R = ‖θ‖: θ' = θ − η·R·u/‖u‖, θ ← R·θ'/‖θ'‖, without decay. Vectors, and matrices of zeros, take the
    plain step θ − η·u. Lookahead changes the norm, and the next step keeps what it finds.
    """

    stage = Stage.UPDATE
    source = "https://whenwen.github.io/wd_blog/public/hyperball-part-1.html"
    replaces = frozenset({Role.UPDATE, Role.DECAY})
    bypasses = frozenset({Stage.DECAY, Stage.UPDATE})
    decay_unit = 0.0

    def forward(self, x: Signals) -> Signals:
        if not x.matrix:
            return x._replace(update=x.direction)
        lr, radius, length = x.lr * x.rate, tensor_norm(x.theta), tensor_norm(x.direction)
        relative = torch.where((radius > 0) & (length > 0), radius / length, 1.0)
        moved = torch.addcmul(x.theta, x.direction, -lr * relative)
        norm = tensor_norm(moved)
        moved = moved * torch.where((radius > 0) & (norm > 0), radius / norm, 1.0)
        return x._replace(update=torch.where(lr > 0, (x.theta - moved) / lr, 0.0))

"""NorMuon's normalization of neurons: Li et al. 2025, arXiv 2510.05491, algorithm 1, and the authors' code."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Signals, Stage
from autoranger.components.core.rows import row_mean, tensor_norm


class NeuronNormalization(Component):
    """Let all rows of a matrix move about equally far, by a second moment for each row of its direction.

    v ← beta2·v + (1 − beta2)·mean(u²) for each row, u' = u/(√v + 1e-10), u ← u'·‖u‖/‖u'‖: the norm of the whole matrix
    stays. With `muon` it is NorMuon. (The paper sets the norm to 0.2·√(R·C) instead, which `muon` has nearly anyway.)
    Vectors are left alone.
    """

    stage = Stage.DIRECTION
    source = "arXiv 2510.05491"
    beta2 = Hyper(0.95, low=0.8, high=0.999, maximum=0.999999)
    state = {"squares": torch.zeros_like}
    kinds = frozenset({"hidden"})

    def forward(self, x: Signals) -> Signals:
        if not x.matrix:
            return x
        squares = torch.lerp(x.state["squares"], x.direction * x.direction, 1 - self.beta2)
        normalized = x.direction / (row_mean(squares).sqrt() + LEAST)
        before, after = tensor_norm(x.direction), tensor_norm(normalized)
        scale = torch.where(after > 0, before / after, 0.0)
        return x._replace(direction=normalized * scale, state={"squares": squares})


LEAST = 1e-10
"""What is added to the root of a row's second moment."""

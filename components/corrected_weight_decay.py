"""Corrected weight decay (AdamC): Defazio 2025, arXiv 2506.02285, algorithm 1."""

from __future__ import annotations

from autoranger.components.core.component import Component, Signals, Stage


class CorrectedWeightDecay(Component):
    """Let the weight decay follow the schedule of the learning rate once more, so that weights keep their norm.

    Decay factor × the schedules' factor on the rate: what is subtracted is η²·λ·θ/η_max. Without a schedule nothing
    changes; a scheduler of torch.optim is not seen. The paper does this to layers before a normalization, this to all.
    """

    stage = Stage.DECAY
    source = "arXiv 2506.02285"

    def forward(self, x: Signals) -> Signals:
        return x._replace(decay=x.decay * x.rate)

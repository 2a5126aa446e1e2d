"""Gradient centralization: Yong et al. 2020, arXiv 2004.01461, equation 1."""

from __future__ import annotations

from autoranger.components.core.component import Component, Signals, Stage
from autoranger.components.core.rows import row_mean


class GradientCentralization(Component):
    """Subtract from each row of a gradient its mean.

    Tensors with more than one dimension only: a vector (a bias, a normalization's gain) has no output units to centre.
    Nor is a row of one number centred, as those of `nn.Linear(1, n)`, of a depthwise 1×1 convolution or of an embedding
    of width 1: it is its own mean, and would never move.
    """

    stage = Stage.GRADIENT
    source = "arXiv 2004.01461"

    def forward(self, x: Signals) -> Signals:
        return x._replace(grad=x.grad - row_mean(x.grad)) if x.matrix else x

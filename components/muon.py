"""Muon: Jordan et al. 2024, and Liu et al. 2025, arXiv 2502.16982."""

from __future__ import annotations

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage
from autoranger.components.core.matrices import on_matrices
from autoranger.components.core.rows import row_size, tensor_size

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of Keller Jordan's polynomial, steep at zero: singular values end between 0.7 and 1.2."""

ITERATIONS = 5
LARGE = 1 << 14
"""Numbers of a single-precision matrix from which on the iterations are in bfloat16."""

LEAST = 1e-7
"""What the norm of a matrix counts as at least."""


@on_matrices
def orthogonalize(x: Tensor) -> Tensor:
    """Nearly UVᵀ for matrices UΣVᵀ `[..., R, C]`, by five iterations of Newton and Schulz.

    In bfloat16, as the authors, where matrices are large, and time matters more than the last digits.
    """
    a, b, c = COEFFICIENTS
    turned = x.shape[-2] > x.shape[-1]
    y = (x.mT if turned else x).reshape(-1, *sorted(x.shape[-2:]))
    y = y.bfloat16() if y.dtype == torch.float32 and y[0].numel() >= LARGE else y.clone()
    y /= torch.linalg.vector_norm(y, dim=(-2, -1), keepdim=True).clamp(min=LEAST)
    for _ in range(ITERATIONS):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return (y.mT if turned else y).reshape(x.shape).to(x.dtype, copy=True)


class Muon(Component):
    """Step along the momentum of a matrix with all its singular values near 1; vectors are AdamW's.

    For matrices m ← μ·m + (1 − μ)·g, with Nesterov's momentum o = orthogonalize((1 − μ)·g + μ·m), u = scale·o, where a
    kernel is the matrix of its rows. The scale is 0.2·√max(R, C), with which u is as long as AdamW's and both share a
    learning rate (`scale = "moonlight"`), or √max(1, R/C), for rates of about 0.02 (`"original"`). As with the authors,
    embeddings and output layers are AdamW's where a model tells the kinds of its parameters, `build(model)`; given as
    bare parameters they are matrices like others.
    """

    stage = Stage.DIRECTION
    source = "https://kellerjordan.github.io/posts/muon"
    momentum = Hyper(0.95, low=0.8, high=0.99, maximum=0.999999)
    scale = Hyper("moonlight", choices=("moonlight", "original"))
    state = {"mean": torch.zeros_like, "second": torch.zeros_like}
    replaces = frozenset({Role.DIRECTION})
    bypasses = frozenset({Stage.MOMENTUM, Stage.DENOMINATOR})
    kinds = frozenset({"hidden"})

    def forward(self, x: Signals) -> Signals:
        return self._of_matrices(x) if x.matrix else self._of_vectors(x)

    def _of_matrices(self, x: Signals) -> Signals:
        mean = torch.lerp(x.state["mean"], x.grad, 1 - self.momentum)
        orthogonal = orthogonalize(torch.lerp(x.grad, mean, self.momentum))
        columns = row_size(x.grad)
        rows = tensor_size(x.grad) / columns
        longest, ratio = torch.maximum(rows, columns), (rows / columns).clamp(min=1)
        scale = torch.where(self.scale > 0, ratio.sqrt(), 0.2 * longest.sqrt())
        return x._replace(direction=orthogonal * scale, state={"mean": mean, "second": orthogonal})

    def _of_vectors(self, x: Signals) -> Signals:
        mean = torch.lerp(x.state["mean"], x.grad, 1 - x.beta1)
        second = torch.lerp(x.state["second"], x.grad * x.grad, 1 - x.beta2)
        x = x._replace(mean=mean, variance=second)
        return x._replace(
            direction=x.mean_hat / (x.variance_hat.sqrt() + x.eps), state={"mean": mean, "second": second}
        )

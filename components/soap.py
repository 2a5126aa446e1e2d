"""SOAP: Vyas et al. 2024, arXiv 2409.11321, algorithm 3, and the authors' code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage
from autoranger.components.core.matrices import between_columns, between_rows, with_memory

LIFT = 1e-30
"""Added to the diagonal of a covariance, relative to its largest number, before its eigenvectors are computed."""


@with_memory
def adam_in_eigenbasis(
    grad: Tensor, alike: Sequence[Tensor], memory: Sequence[Tensor], numbers: Sequence[Tensor]
) -> list[Tensor]:
    """The direction of matrices `[K, B, R, C]`, and what is remembered of them.

    Args:
        grad: the gradients.
        alike: Adam's moments, in the basis.
        memory: covariances of rows and of columns, and their bases; empty for a side that is too long.
        numbers: updates from 1, β1, β2, ε, and after how many updates the basis is new.
    """
    (mean, second), covariances, bases = alike, memory[:2], memory[2:]
    updates, beta1, beta2, eps, every = (x.expand(*grad.shape[:2], 1, 1) for x in numbers)
    t = updates - 1
    begins, due = t == 0, (t > 0) & (t % every == 0)
    turned, mean, second = adam(turn(grad, bases), mean, second, t, beta1, beta2, eps)
    direction = turn(turned, [basis.mT for basis in bases])
    sides = zip(covariances, (grad, grad.mT), strict=True)
    covariances = [torch.lerp(old, x @ x.mT, 1 - beta2) if old.numel() else old.clone() for old, x in sides]
    bases = [basis.clone() for basis in bases]
    if begins.any():
        begin(begins[..., 0, 0], covariances, bases)
    if due.any():
        renew(due[..., 0, 0], mean, second, covariances, bases)
    return [direction, mean, second, *covariances, *bases]


def adam(
    x: Tensor, mean: Tensor, second: Tensor, t: Tensor, beta1: Tensor, beta2: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's direction for gradients x, and its new moments. At t = 0 nothing moves."""
    begins = t == 0
    mean = torch.where(begins, mean, torch.lerp(mean, x, 1 - beta1))
    second = torch.where(begins, second, torch.lerp(second, x * x, 1 - beta2))
    correction = (1 - beta2**t).sqrt() / (1 - beta1 ** t.clamp(min=1))
    return torch.where(begins, 0.0, mean / (second.sqrt() + eps) * correction), mean, second


def turn(x: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """Matrices in these bases of their rows and columns: QᵀxP; an empty basis is that which they are in."""
    of_rows, of_columns = bases
    x = of_rows.mT @ x if of_rows.numel() else x
    return x @ of_columns if of_columns.numel() else x


def begin(chosen: Tensor, covariances: Sequence[Tensor], bases: Sequence[Tensor]) -> None:
    """Makes the first bases of tensors that a mask `[K, B]` chooses: eigenvectors, those of large eigenvalues first.

    The gradient of one step tells of no more eigenvectors than the shorter side has. The others are any directions at
    right angles to them: here those that Householder's reflections give, which rounding does not decide.
    """
    for covariance, basis in zip(covariances, bases, strict=True):
        if basis.numel():
            x, precision = covariance[chosen], torch.finfo(basis.dtype)
            x = x / x.abs().amax(dim=(-2, -1), keepdim=True).clamp(min=precision.tiny)
            values, vectors = eigenvectors(torch.nan_to_num(x))
            told = values > x.shape[-1] * precision.eps * values[..., -1:]
            basis[chosen] = torch.linalg.qr((vectors * told.unsqueeze(-2)).flip(-1)).Q


def eigenvectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, in ascending order, and eigenvectors of symmetric matrices whose largest number is about 1.

    Where rows are zero, as those of inputs that a ReLU leaves at 0, LAPACK's iteration can fail in float32. The authors
    add to the diagonal what changes nothing else.
    """
    x = x + LIFT * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    try:
        return torch.linalg.eigh(x)  # type: ignore[no-any-return]
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        values, vectors = torch.linalg.eigh(x.double())
        return values.to(x.dtype), vectors.to(x.dtype)


def renew(chosen: Tensor, mean: Tensor, second: Tensor, covariances: Sequence[Tensor], bases: Sequence[Tensor]) -> None:
    """Moves bases towards the eigenvectors, and moments along, by power iteration; `chosen` is as for `begin`."""
    m, v = (x[chosen] for x in (mean, second))
    before = [basis[chosen] for basis in bases]
    m, now = turn(m, [basis.mT for basis in before]), []
    for dim, covariance, basis in zip((-2, -1), covariances, before, strict=True):
        if not basis.numel():
            now.append(basis)
            continue
        x = covariance[chosen]
        order = (basis * (x @ basis)).sum(dim=-2).argsort(dim=-1, descending=True)
        along = order.unsqueeze(-1 if dim == -2 else -2)
        v = v.gather(dim, along.expand(v.shape))
        basis = basis.gather(-1, order.unsqueeze(-2).expand(basis.shape))
        now.append(torch.linalg.qr(x @ basis).Q)
    for target, value in ((mean, turn(m, now)), (second, v), *zip(bases, now, strict=True)):
        if target.numel():
            target[chosen] = value


class Soap(Component):
    """Adam in the basis in which the gradients' covariances, of rows and of columns, are diagonal.

    For matrices L ← β2·L + (1 − β2)·g·gᵀ and R ← β2·R + (1 − β2)·gᵀ·g, with the eigenvectors Q and P. Adam's moments
    are those of QᵀgP, and its direction is turned back. After every few updates a step of power iteration with a QR
    decomposition brings Q and P up to date. The first update only begins all that: it moves and decays nothing. A side
    of more than 10,000 is not turned, nor one above 1,024 that is 16 times as long as the other. A kernel is the matrix
    of its rows; vectors are AdamW's, one update later. Besides three numbers for each of a matrix it keeps four square
    matrices, two of R × R and two of C × C numbers. The authors use both β = 0.95, which the preset `soap` has.
    """

    stage = Stage.DIRECTION
    source = "arXiv 2409.11321"
    every = Hyper(10, low=2, high=50, log=True, minimum=1)
    state = {
        "direction": torch.zeros_like,
        "mean": torch.zeros_like,
        "second": torch.zeros_like,
        "rows": between_rows,
        "columns": between_columns,
        "basis_of_rows": between_rows,
        "basis_of_columns": between_columns,
    }
    replaces = frozenset({Role.DIRECTION})
    bypasses = frozenset({Stage.MOMENTUM, Stage.DENOMINATOR})

    def forward(self, x: Signals) -> Signals:
        x = x._replace(decay=torch.where(x.updates == 1, 0.0, x.decay))
        return self._of_matrices(x) if x.matrix else self._of_vectors(x)

    def _of_matrices(self, x: Signals) -> Signals:
        _, mean, second, *memory = (x.state[name] for name in self.state)
        numbers = [x.updates, x.beta1, x.beta2, x.eps, self.every]
        made = adam_in_eigenbasis(x.grad, [mean, second], memory, numbers)
        return x._replace(direction=made[0], state=dict(zip(self.state, made, strict=True)))

    def _of_vectors(self, x: Signals) -> Signals:
        mean, second = x.state["mean"], x.state["second"]
        direction, mean, second = adam(x.grad, mean, second, x.updates - 1, x.beta1, x.beta2, x.eps)
        return x._replace(direction=direction, state={**x.state, "mean": mean, "second": second})

"""Scale laws: how the best rate and weight decay change with width, depth, batch size and length of a training.

Each is one function of ratios, the real training's number over the proxy's, and of how an optimizer's update depends on
gradients and weights (`Degrees`). What studies/17_transfer measured of them is said there.
"""

from __future__ import annotations

from typing import NamedTuple

STEPS = 0.32
"""The exponent of steps in `length`."""


class Degrees(NamedTuple):
    """How an optimizer's update grows with what it is made of.

    Args:
        gradient: a: with gradients c times as large it is c^a times as large. 0 for AdamW, whose update is normalized;
            1 for SGD; 1/3 for MADGRAD.
        weight: b: the same for weights. 0 for AdamW; 1 where a trust ratio ties the update to the weights.
    """

    gradient: float = 0.0
    weight: float = 0.0


def width(kind: str, fan_in: float, fan_out: float, degrees: Degrees) -> float:
    """The factor on the rate for a layer with other fans (μP: Yang et al. 2022, arXiv 2203.03466, tables 3 and 8).

    An update of a hidden matrix is to change its outputs as much at every width. Its numbers have to be of the size
    1/fan_in, its gradients are of that size, and its weights of 1/√fan_in. So the rate goes with fan_in^(a + b/2 − 1):
    1/fan_in for AdamW, constant for SGD, as the tables have it. Numbers of embeddings and vectors keep their size, and
    their gradients go with 1/fan_out: fan_out^a.

    A head's gradients do not depend on the width. How much its updates move the outputs does, by between √fan_in and
    fan_in, depending on how they align with what the layers below have learned (Everett et al. 2024, arXiv 2407.05872,
    who call these none and full alignment). The first is nearer to what is seen: the rate goes with fan_in^((b − 1)/2).

    It assumes an initialization with a standard deviation of c/√fan_in, as torch's own.
    """
    a, b = degrees
    if kind == "hidden":
        return float(fan_in ** (a + b / 2 - 1))
    return float(fan_in ** ((b - 1) / 2) if kind == "head" else fan_out**a)


def depth(kind: str, blocks: float, degrees: Degrees) -> float:
    """The factor on the rate of hidden matrices for more blocks (Mlodozeniec et al. 2025, arXiv 2512.22382, α = 1/2).

    Each block adds to a residual stream whose size grows with the root of their number, and their updates add up: the
    rate goes with blocks^(−1/2). It is the rule for AdamW and models that do not scale the branches themselves.
    """
    return float(blocks**-0.5) if kind == "hidden" and degrees.gradient < 1 else 1.0


def batch(size: float, degrees: Degrees) -> float:
    """The factor on the rate for larger batches of the same data (Malladi et al. 2022, arXiv 2205.10287).

    The square root of their ratio where updates are normalized by noise, the ratio itself for SGD: size^((1 + a)/2). It
    holds as long as noise is what limits the rate. Betas stay as they are.
    """
    return float(size ** ((1 + degrees.gradient) / 2))


def length(size: float, steps: float) -> float:
    """The factor on the rate for more data (Mlodozeniec et al. 2025, arXiv 2512.22382; Bjorck et al. 2024, 2409.19913).

    More data in larger batches take back what `batch` gives, size^(−1/2): of both, only the number of steps counts in
    the first paper. More steps want a lower rate: steps^−0.32, as the second one measured it for AdamW, which is
    nearer to what is seen here than the first one's root.
    """
    return float(size**-0.5 * steps**-STEPS)


def decay(rate: float, steps: float) -> float:
    """The factor on weight decay (Wang and Aitchison 2024, arXiv 2405.13698; Bergsma et al. 2025, arXiv 2505.13738).

    Weights are an average of updates over 1/(η·λ) steps, which is to be the same share of the data: η·λ·T stays, where
    T are the steps of the first pass over the data. Further passes leave λ as it is: lowering it, as for more data,
    costs much where a model overfits (studies/17_transfer).

    Args:
        rate: the factor on the learning rate that such a training would have.
        steps: the ratio of steps of the first pass.
    """
    return 1 / (rate * steps)

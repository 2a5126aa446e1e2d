"""What a component reads and changes (`Signals`), when it acts (`Stage`), what part it plays (`Role`)."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


class Stage(enum.IntEnum):
    """When a component acts within a step. Stages run in this order; AdamW's own part of a stage runs first.

    >>> Stage.GRADIENT < Stage.UPDATE
    True
    """

    RATE = 0  # scalars only: the factor on the learning rate, the momentum
    GRADIENT = 1  # the gradient, before anything has seen it
    MOMENTUM = 2  # the first and second moment
    DENOMINATOR = 3  # what the first moment is divided by
    DIRECTION = 4  # the preconditioned step direction
    DECAY = 5  # the factor on the weight decay
    UPDATE = 6  # direction and decay together
    WEIGHTS = 7  # the parameters after the update


class Role(enum.Enum):
    """A part of the step that only one component can play. AdamW plays the first six, until a component replaces it.

    >>> from autoranger.components.madgrad import Madgrad
    >>> Role.DIRECTION in Madgrad.replaces
    True
    """

    FIRST_MOMENT = "first moment"
    SECOND_MOMENT = "second moment"
    DENOMINATOR = "denominator"
    DIRECTION = "direction"
    UPDATE = "update"
    WEIGHTS = "weights"
    DECAY = "decay"
    TRUST_RATIO = "trust ratio"
    WARMUP = "warmup"
    ANNEALING = "annealing"
    POINT = "weights that gradients are taken at"
    EVALUATION = "weights to evaluate with"


class Signals(NamedTuple):
    """What one step knows about one stack of B equal-shaped tensors of K candidates.

    Large signals have the shape `[K, B, R, C]` (see `rows`), scalars any shape that broadcasts to it. A component
    returns a copy with the signals that it changes; in the rate stage only the scalars are there.

    >>> def forward(self, x: Signals) -> Signals:
    ...     return x._replace(grad=x.grad.sign())
    """

    theta: Tensor  # parameters
    grad: Tensor  # gradient
    mean: Tensor  # first moment m, before bias correction
    variance: Tensor  # second moment v, before bias correction
    denominator: Tensor  # √v̂ + ε
    direction: Tensor  # m̂ / denominator
    decay: Tensor  # factor on the weight decay, from 1
    update: Tensor  # direction + λ · decay · θ
    rate: Tensor  # factor on the learning rate, from 1
    lr: Tensor
    beta1: Tensor
    beta2: Tensor
    eps: Tensor
    weight_decay: Tensor
    step: Tensor  # t: steps of the optimizer, from 1
    updates: Tensor  # updates of this tensor, from 1: lags behind `step` where a gradient was missing
    total: Tensor  # T: planned steps
    state: Mapping[str, Tensor]  # the current component's own state; returned changed entries are stored
    collected: Sequence[Tensor]  # this component's `collect`, summed over all tensors: [K, 1, 1, 1] each
    matrix: bool  # whether these tensors have more than one dimension, and more than one number in each row

    @property
    def mean_hat(self) -> Tensor:
        """m̂ = m / (1 − β1^updates), the first moment corrected for bias."""
        return self.mean / (1 - self.beta1**self.updates)

    @property
    def variance_hat(self) -> Tensor:
        """v̂ = v / (1 − β2^updates), the second moment corrected for bias."""
        return self.variance / (1 - self.beta2**self.updates)


SCALARS = ("rate", "decay", "lr", "beta1", "beta2", "eps", "weight_decay", "total", "step")
"""The signals that are the same for all tensors of a parameter group; the rate stage may change them."""

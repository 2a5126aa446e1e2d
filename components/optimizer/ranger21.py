"""`Ranger21`: the optimizer whose components are arguments. `ranger21.pyi`, which is generated, tells editors which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from autoranger.components.core.component import Component
from autoranger.components.core.config import Compile, Config
from autoranger.components.core.errors import ConfigError
from autoranger.components.optimizer.optimizer import ComposedOptimizer
from autoranger.components.presets import RANGER21

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT

WAYS_OF_TORCH = frozenset({"foreach", "fused", "capturable", "differentiable"})
"""Arguments that torch's optimizers have, and frameworks may pass."""


class Ranger21(ComposedOptimizer):
    """Ranger21 (Wright and Demeure 2021, arXiv 2106.13731): AdamW and eight components, each of which can be off.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = Ranger21(model.parameters(), lr=1e-3, total_steps=100, lookahead=False, norm_loss=False)
    >>> optimizer = Ranger21(model.parameters(), total_steps=100, positive_negative_momentum={"beta0": 0.5})
    >>> optimizer = Ranger21(model.parameters())
    Traceback (most recent call last):
    autoranger.components.core.errors.ConfigError: total_steps is missing, but explore_exploit and linear_warmup ...

    Args:
        params: a model, parameters, named parameters or parameter groups.
        lr: learning rate, 1e-3; a tensor may be changed in place.
        betas: decay rates of the moments, (0.9, 0.999).
        eps: of the denominator, 1e-8.
        weight_decay: λ, 1e-4.
        total_steps: optimizer steps in the whole training; needed by linear_warmup and explore_exploit.
        maximize: whether to go up the gradient.
        compile: whether the step is compiled: "auto" (where it can be), True or False; see `ComposedOptimizer`.
        state_dtype: `torch.bfloat16` for 12 instead of 20 bytes of state a number; see `ComposedOptimizer`.
        components: by id False, True or a dict of hyperparameters. The eight are on unless they are said to be off.

    Raises:
        ConfigError: (a ValueError) on an unknown component or hyperparameter, a value out of range, no parameters, or
            a missing `total_steps`.
    """

    def __init__(
        self,
        params: ParamsT | nn.Module,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-4,
        total_steps: int | None = None,
        maximize: bool = False,
        compile: Compile = "auto",
        state_dtype: torch.dtype | None = None,
        **components: bool | Mapping[str, float | int | str],
    ) -> None:
        own = ["betas", "eps", "weight_decay", "total_steps", "maximize", "compile", "state_dtype"]
        for name in components:
            if name in WAYS_OF_TORCH:
                raise ConfigError(
                    f"{name} is for torch's own optimizers, where it is how a step is computed; leave it out: here "
                    'that is compile, and "auto" takes the fastest way.'
                )
            Component.named(name, others=own)
        chosen: dict[str, Any] = dict.fromkeys(RANGER21, True) | components
        number: Any = float(lr) if isinstance(lr, Tensor) and lr.numel() == 1 else lr
        super().__init__(
            params,
            Config(number, betas, eps, weight_decay, chosen),
            total_steps=total_steps,
            lr=lr,
            maximize=maximize,
            compile=compile,
            state_dtype=state_dtype,
        )

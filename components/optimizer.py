"""The `torch.optim.Optimizer`: the vectorized step with K = 1 over a user's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from autoranger.components.binding import Bound, Compile, Numbers, compute_dtype
from autoranger.components.component import registry
from autoranger.components.config import Config, check_betas, check_number, complete
from autoranger.components.errors import ConfigError, unknown
from autoranger.components.presets import RANGER21
from autoranger.components.step import require_total_steps

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT, StateDict


class ComposedOptimizer(Optimizer):
    """AdamW plus the components of a config, as an ordinary `torch.optim.Optimizer`.

    `param_groups` holds `lr`, `betas`, `eps`, `weight_decay` and `total_steps`; changes there count from the next step
    on. `lr` is the base rate: schedules among the components act on top of it and leave it alone, so that other
    schedulers and the components get along (`get_last_lr` tells the product). Updates count per parameter, so one that
    had no gradient in a step is left alone; schedules count the steps of the optimizer. `state_dict` holds all of that.

    Args:
        params: parameters, named parameters or parameter groups, which may override the config's numbers.
        config: the optimizer as data.
        total_steps: T, optimizer steps in the whole training; needed by the components that are schedules.
        compile: whether the step is compiled, for which the first one takes a second, or some on a GPU: "auto", where
            it can be, but on a CPU only; True, or else it is an error; False, never. The results are the same to
            rounding. On a CPU it needs a C++ compiler, on a GPU Triton, which comes with torch for CUDA.

    Raises:
        ConfigError: (a ValueError) where `params` is empty, `total_steps` is missing or a value is out of range; at
            the first step where it cannot be compiled and `compile` is True.
    """

    def __init__(
        self, params: ParamsT, config: Config, *, total_steps: int | None = None, compile: Compile = "auto"
    ) -> None:
        require_total_steps([config], total_steps)
        if isinstance(params, Tensor):
            raise ConfigError("params is a single tensor, but must be a list of them; write [parameter].")
        if compile not in (True, False, "auto"):
            raise ConfigError(f'compile is {compile!r}, but must be True, False or "auto".')
        given: list[Any] = list(params)
        if not given:
            raise ConfigError("the parameter list is empty; pass model.parameters() of a model that has some.")
        self.config, self.compile = config, compile
        self._bound: Bound | None = None
        super().__init__(given, config.to_dict() | {"total_steps": total_steps, "step": 0})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with numbers of their own; state of the others is kept."""
        self._release()
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            group["step"] = self.param_groups[0]["step"]
            check_group(group, self.config)
        except ConfigError:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update; returns what `closure` returns, called with gradients enabled."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        bound: Bound = self._bound or self._bind()
        bound.step()
        return loss

    def get_last_lr(self) -> list[float]:
        """The learning rate of the latest step for each group: `lr` times the factor of the schedules.

        Reads from the device; meant for logging, as `torch.optim.lr_scheduler.LRScheduler.get_last_lr`.
        """
        numbers = self._bound.numbers if self._bound else Numbers(self.config, self.param_groups)
        return numbers.rates()

    def state_dict(self) -> StateDict:
        """State per parameter and the groups, as torch's own optimizers; continues bit for bit where it is loaded."""
        self._count_steps()
        return super().state_dict()

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Continues from a `state_dict` of an optimizer with the same components.

        Raises:
            ConfigError: (a ValueError) where the components differ.
        """
        mine = self.config.to_dict()["components"]
        for group in state_dict["param_groups"]:
            if filled(group.get("components")) != mine:
                theirs = ", ".join(group.get("components", {"none of autoranger's": None})) or "none"
                raise ConfigError(
                    f"the state is of an optimizer with other components or hyperparameters ({theirs}); "
                    f"build it from the same config ({', '.join(mine) or 'none'} here)."
                )
        self._release()
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        self._count_steps()
        return super().__getstate__() | {"config": self.config, "compile": self.compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._bound = None

    # torch.compile cannot trace the making of modules. (`torch.compiler.disable` would import all of the compiler.)
    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _bind(self) -> Bound:
        """Lays the parameters out for the step, as they are now."""
        self._bound = Bound(self.config, self.param_groups, self.state, self.compile)
        return self._bound

    def _count_steps(self) -> None:
        """Writes the count of steps, which lives on the device, into the groups."""
        if self._bound is not None:
            for group in self.param_groups:
                group["step"] = int(self._bound.core.steps)

    def _release(self) -> None:
        """Forgets the binding, which is made again from the groups and the state at the next step."""
        self._count_steps()
        self._bound = None


class Ranger21(ComposedOptimizer):
    """Ranger21 (Wright and Demeure 2021, arXiv 2106.13731): AdamW and eight components, each of which can be off.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate, 1e-3.
        betas: decay rates of the moments, (0.9, 0.999).
        eps: of the denominator, 1e-8.
        weight_decay: λ, 1e-4.
        total_steps: optimizer steps in the whole training; needed by linear_warmup and explore_exploit.
        compile: whether the step is compiled: "auto" (on a CPU, where it can be), True or False; see
            `ComposedOptimizer`.
        components: by id False, True or a dict of hyperparameters. The eight are on unless they are said to be off.

    Raises:
        ConfigError: (a ValueError) on an unknown component or hyperparameter, a value out of range, no parameters, or
            a missing `total_steps`.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-4,
        total_steps: int | None = None,
        compile: Compile = "auto",
        **components: bool | Mapping[str, float | int | str],
    ) -> None:
        for name in components:
            if name not in registry:
                raise unknown("component", name, [*registry, "betas", "eps", "weight_decay", "total_steps", "compile"])
        chosen: dict[str, Any] = dict.fromkeys(RANGER21, True) | components
        super().__init__(params, Config(lr, betas, eps, weight_decay, chosen), total_steps=total_steps, compile=compile)


def filled(components: object) -> object:
    """Saved components, with the defaults of hyperparameters that are newer; as they are where they are not valid."""
    try:
        return complete(components)
    except ConfigError:
        return components


def check_group(group: dict[str, Any], config: Config) -> None:
    """ConfigError where the numbers of a parameter group are not valid for this config."""
    for name in ("lr", "eps", "weight_decay"):
        if not isinstance(group[name], Tensor):
            check_number(name, group[name])
    check_betas(group["betas"])
    compute_dtype(group["params"])
    require_total_steps([config], group["total_steps"])
    if group["components"] != config.to_dict()["components"]:
        raise ConfigError("components are the same for all parameter groups; use two optimizers to have them differ.")

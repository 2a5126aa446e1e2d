"""The `torch.optim.Optimizer`: the vectorized step with K = 1 over a user's parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from autoranger.components.config import Config, check_betas, check_number
from autoranger.components.errors import ConfigError
from autoranger.components.presets import RANGER21
from autoranger.components.rows import row_shape
from autoranger.components.step import Stack, Step, require_total_steps

if TYPE_CHECKING:
    from torch.optim.optimizer import ParamsT, StateDict

STACKED_BELOW = 1 << 16
"""Tensors of fewer numbers are stacked with others of their shape: they cost calls, larger ones cost memory traffic."""


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

    Raises:
        ConfigError: (a ValueError) where `params` is empty, `total_steps` is missing or a value is out of range.
    """

    def __init__(self, params: ParamsT, config: Config, *, total_steps: int | None = None) -> None:
        require_total_steps([config], total_steps)
        given: list[Any] = list(params)
        if not given:
            raise ConfigError("the parameter list is empty; pass model.parameters() of a model that has some.")
        self.config = config
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
        if self._bound is None:
            self._bound = Bound(self)
        self._bound.step()
        return loss

    def get_last_lr(self) -> list[float]:
        """The learning rate of the latest step for each group: `lr` times the factor of the schedules.

        Reads from the device; meant for logging, as `torch.optim.lr_scheduler.LRScheduler.get_last_lr`.
        """
        if self._bound is None:
            self._bound = Bound(self)
        return self._bound.rates()

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
            if group.get("components") != mine:
                theirs = ", ".join(group.get("components", {"none of autoranger's": None})) or "none"
                raise ConfigError(
                    f"the state is of an optimizer with other components or hyperparameters ({theirs}); "
                    f"build it from the same config ({', '.join(mine) or 'none'} here)."
                )
        self._release()
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        self._count_steps()
        return super().__getstate__() | {"config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._bound = None

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
        **components: bool | Mapping[str, float | int | str],
    ) -> None:
        chosen: dict[str, Any] = dict.fromkeys(RANGER21, True) | components
        super().__init__(params, Config(lr, betas, eps, weight_decay, chosen), total_steps=total_steps)


class Bound:
    """An optimizer's parameters laid out for the step: which tensors form a stack, and their state.

    Every tensor in `optimizer.state` is a view of the stacked state, so that both always agree. State that is there
    already (loaded, or of an earlier layout) is taken over.
    """

    def __init__(self, optimizer: ComposedOptimizer) -> None:
        self.groups = optimizer.param_groups
        params = [p for group in self.groups for p in group["params"]]
        self.core = Step(
            [optimizer.config],
            self.groups[0]["total_steps"],
            dtype=compute_dtype(params),
            device=the_device(params),
            groups=len(self.groups),
        )
        self.core.steps.fill_(self.groups[0]["step"])
        self.written: list[dict[str, Any]] = [{} for _ in self.groups]
        self.members: list[list[Tensor]] = []
        for index, group in enumerate(self.groups):
            for members in alike(group["params"]):
                stack = self.core.add(gather(members), matrix=members[0].dim() > 1, group=index)
                self.members.append(members)
                adopt(stack, members, optimizer.state)

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        self._read_groups()
        thetas, grads, masks = [], [], []
        for members in self.members:
            present = [p.grad is not None for p in members]
            thetas.append(gather(members))
            grads.append(gather([gradient(p) for p in members]) if any(present) else None)
            partly = any(present) and not all(present)
            masks.append(torch.tensor(present, device=members[0].device).view(1, -1, 1, 1) if partly else None)
        self.core(thetas, grads, masks)
        for members, theta, grad in zip(self.members, thetas, grads, strict=True):
            if grad is not None:
                scatter(theta, members)

    def rates(self) -> list[float]:
        """Learning rate times the schedules' factor at the latest step, for each group."""
        self._read_groups()
        signals = [self.core.scalars(index) for index in range(len(self.groups))]
        return [float(x.lr * x.rate) for x in signals]

    def _read_groups(self) -> None:
        """Takes over what has changed in `param_groups` since the last step, without waiting for the device."""
        for index, (group, written) in enumerate(zip(self.groups, self.written, strict=True)):
            beta1, beta2 = group["betas"]
            now = {name: group[name] for name in ("lr", "eps", "weight_decay")}
            now |= {"beta1": beta1, "beta2": beta2, "total": group["total_steps"] or 0}
            for name, value in now.items():
                # A tensor may have been changed in place, which a comparison would not see.
                if isinstance(value, Tensor) or written.get(name) != value:
                    target = getattr(self.core, name)[:, index]
                    target.copy_(value) if isinstance(value, Tensor) else target.fill_(value)
            written.update(now)


def alike(params: list[Tensor]) -> list[list[Tensor]]:
    """Parameters grouped for stacking: small ones by shape and dtype, large ones alone, empty ones left out."""
    stacks: dict[object, list[Tensor]] = defaultdict(list)
    for p in params:
        if p.numel():
            stacks[(p.shape, p.dtype) if p.numel() < STACKED_BELOW else id(p)].append(p)
    return list(stacks.values())


def gather(members: list[Tensor]) -> Tensor:
    """The stack `[1, B, R, C]` of equal-shaped tensors: a view where there is one contiguous tensor, else a copy."""
    rows = row_shape(members[0].shape)
    if len(members) == 1:
        return members[0].detach().reshape(1, 1, *rows)
    return torch.stack([m.detach() for m in members]).view(1, len(members), *rows)


def scatter(theta: Tensor, members: list[Tensor]) -> None:
    """Writes a stack back into the tensors that it was gathered from; nothing where it is a view of them."""
    if theta.data_ptr() != members[0].data_ptr():
        torch._foreach_copy_([m.detach() for m in members], list(theta.view(len(members), *members[0].shape)))


def gradient(p: Tensor) -> Tensor:
    """The gradient of a parameter, zeros where it has none (the step then leaves the parameter alone)."""
    if p.grad is None:
        return torch.zeros_like(p)
    if p.grad.layout != torch.strided:
        raise ConfigError("sparse gradients are not supported; make them dense, e.g. nn.Embedding(…, sparse=False).")
    return p.grad


def adopt(stack: Stack, members: list[Tensor], state: dict[Tensor, Any]) -> None:
    """Copies state that exists into the stack, and makes `state` hold views of the stack."""
    for index, p in enumerate(members):
        views = {"step": stack.count[0, index, 0, 0]}
        for component, slot in stack.by_id.items():
            views |= {f"{component}.{name}": buffer[0, index].view(p.shape) for name, buffer in slot.tensors().items()}
        known = state.get(p, {})
        for name, view in views.items():
            if name in known:
                view.copy_(known[name])
        state[p] = views


def compute_dtype(params: list[Tensor]) -> torch.dtype:
    """float64 where any parameter is, else float32: half-precision parameters are stored, not computed, in half."""
    for p in params:
        if not p.is_floating_point():
            raise ConfigError(f"a parameter has dtype {p.dtype}, but must be real floating point.")
    return torch.float64 if any(p.dtype == torch.float64 for p in params) else torch.float32


def the_device(params: list[Tensor]) -> torch.device:
    """The device of the parameters; ConfigError where they are on several."""
    devices = {p.device for p in params}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise ConfigError(f"the parameters are on several devices ({names}); use one optimizer for each device.")
    return devices.pop()


def check_group(group: dict[str, Any], config: Config) -> None:
    """ConfigError where the numbers of a parameter group are not valid for this config."""
    for name in ("lr", "eps", "weight_decay"):
        if not isinstance(group[name], Tensor):
            check_number(name, group[name])
    check_betas(group["betas"])
    require_total_steps([config], group["total_steps"])
    if group["components"] != config.to_dict()["components"]:
        raise ConfigError("components are the same for all parameter groups; use two optimizers to have them differ.")

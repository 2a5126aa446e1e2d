"""The numbers in an optimizer's `param_groups`: checked, and taken over by the step when they have changed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.config import Config, check_betas, check_number, complete
from autoranger.components.core.errors import ConfigError, warn
from autoranger.components.core.hyper import plain_number
from autoranger.components.core.kinds import check_kind
from autoranger.components.core.step import Step, require_total_steps

Group = dict[str, Any]


class Numbers:
    """A step, and the numbers in an optimizer's `param_groups` as its buffers.

    Args:
        config: of the optimizer.
        groups: its `param_groups`.
        before: what served for other groups or parameters until now, whose count of steps goes on.
        state_dtype: see `ComposedOptimizer`.
    """

    def __init__(
        self,
        config: Config,
        groups: list[Group],
        before: Numbers | None = None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        self.config, self.groups = config, groups
        for group in groups:
            require_total_steps([config], group["total_steps"])
        params = [p for group in groups for p in group["params"]]
        dtype, device = compute_dtype(params), the_device(params)
        self.core = Step(
            [config],
            max((group["total_steps"] or 0 for group in groups), default=0) or None,
            dtype=dtype,
            device=device,
            groups=[[config.of(group.get("kind"))] for group in groups],
            shared=True,
            state_dtype=state_dtype,
        )
        self.taken: int = groups[0]["step"] if before is None else before.taken
        if before is None:
            self.core.steps.fill_(self.taken)
        else:  # on the device, where replays of a CUDA graph may have moved it on
            self.core.steps.copy_(before.core.steps)
        self.written: list[Group] = [{} for _ in groups]
        self.schedules = config.needs_total_steps
        self.told: bool = before is not None and before.told
        """Whether it has been said that a scheduler acts on top of the schedules."""

    def read(self) -> None:
        """Takes over what has changed since the last time, without waiting for the device.

        Raises:
            ConfigError: where a number is none, or `total_steps` is missing and needed.
        """
        if self.groups[0]["step"] != self.taken:  # by the user: schedules go on from there
            self.taken = int(self.groups[0]["step"])
            self.core.steps.fill_(self.taken)
        for index, (group, written) in enumerate(zip(self.groups, self.written, strict=True)):
            betas = group["betas"]
            if betas is not written.get("betas"):
                check_betas_of(betas)
            now = {name: group[name] for name in ("lr", "eps", "weight_decay", "total_steps")}
            now |= {"beta1": betas[0], "beta2": betas[1]}
            for name, value in now.items():
                # A tensor may have been changed in place, which a comparison would not see.
                if isinstance(value, Tensor) or name not in written or written[name] != value:
                    number = self._checked(name, value)
                    target = getattr(self.core, BUFFERS.get(name, name))[:, index]
                    target.copy_(number) if isinstance(number, Tensor) else target.fill_(number)
                    if name == "lr" and self.schedules and not self.told:
                        self._tell_of_schedulers(value, group.get("initial_lr", value))
            written |= now | {"betas": betas}

    def _checked(self, name: str, value: object) -> float | Tensor:
        if name == "total_steps":
            require_total_steps([self.config], value)  # type: ignore[arg-type]
            return value or 0  # type: ignore[return-value]
        if isinstance(value, Tensor):
            return one_number(name, value)
        number = plain_number(value)
        if number is None:  # schedulers may go below zero, if only by rounding
            raise ConfigError(f"{name} of a parameter group is {value!r}, but must be a finite number.")
        return number

    def _tell_of_schedulers(self, lr: float | Tensor, initial: float | Tensor) -> None:
        """Says once that the schedules and a scheduler both act; `initial` is the rate that schedulers note down."""
        if isinstance(lr, Tensor) or isinstance(initial, Tensor) or math.isclose(lr, initial, rel_tol=1e-6):
            return
        self.told = True
        names = " and ".join(self.schedules)
        warn(
            f"a scheduler has changed lr from {initial:g} to {lr:g}, on top of {names}: the factors multiply. For the "
            'components\' schedule alone use no scheduler, or a constant one (lr_scheduler_type="constant" of '
            "transformers), or autoranger.OwnSchedule(optimizer) where there has to be one; for the scheduler's alone "
            f"switch {names} off."
        )

    def advance(self) -> None:
        """Counts a step that has been taken."""
        self.tell(self.taken + 1)

    def recount(self) -> None:
        """Asks the device for the count, which replays of a CUDA graph may have moved on; waits for it."""
        if self.groups and self.groups[0]["step"] == self.taken:
            self.tell(int(self.core.steps))

    def tell(self, taken: int) -> None:
        """Writes the count of steps into the groups."""
        self.taken = taken
        for group in self.groups:
            group["step"] = taken

    def rates(self) -> list[float]:
        """Learning rate times the schedules' factor at the latest step, for each group."""
        self.read()
        x = self.core.scalars()
        return [float(rate) for rate in (x.lr * x.rate)[0, :, 0, 0]]


BUFFERS = {"total_steps": "total"}
"""Numbers whose buffer in the step has another name."""


def one_number(name: str, value: Tensor) -> Tensor:
    """A tensor of one number, without axes; ConfigError where there are more or less."""
    if value.numel() != 1:
        raise ConfigError(f"{name} is a tensor of {value.numel()} numbers, but must be one number.")
    return value.reshape(())


def check_betas_of(given: Any) -> None:
    """`check_betas` of a parameter group, where a tensor of one number may be any: reading it waits for the device."""
    is_pair = isinstance(given, list | tuple)
    check_betas([0 if isinstance(beta, Tensor) and beta.numel() == 1 else beta for beta in given] if is_pair else given)


def chosen(config: Config) -> dict[str, Any] | None:
    """The components that are on, for a group: one without hyperparameters is `True`, none at all are None.

    What flattens a state for a checkpoint, as torch does, has no place for a dict in which there is nothing.
    """
    return {name: dict(settings) or True for name, settings in config.components.items()} or None


def check_numbers(group: Group) -> None:
    """ConfigError where a number to begin with is not valid. `Numbers` checks those that schedulers set later."""
    for name in ("lr", "eps", "weight_decay"):
        value = group[name]
        one_number(name, value) if isinstance(value, Tensor) else check_number(name, value)
    check_betas_of(group["betas"])


def check_group(group: Group, config: Config) -> None:
    """ConfigError where what else is in a parameter group is not valid for this config."""
    params = group["params"]
    if group.get("kind") is not None:
        check_kind(group["kind"])
    if isinstance(params, Tensor) or not all(isinstance(p, Tensor) for p in params):
        raise ConfigError('"params" of a parameter group must be a list of tensors.')
    if not isinstance(group["maximize"], bool):
        raise ConfigError(f"maximize is {group['maximize']!r}, but must be True or False.")
    compute_dtype(params)
    require_total_steps([config], group["total_steps"])
    given, config = group["components"], config.of(group.get("kind"))
    if given != chosen(config) and complete(given or {}) != config.components:
        raise ConfigError(
            "components are the same for all parameter groups; use two optimizers to have them differ, or say so for a "
            'kind of parameters, as in Config(kinds={"vector": {"components": {"lookahead": False}}}).'
        )


def check_state_dtype(state_dtype: torch.dtype | None, params: Iterable[Tensor]) -> None:
    """ConfigError where state cannot be kept in this type."""
    if state_dtype not in (None, torch.bfloat16):
        raise ConfigError(f"state_dtype is {state_dtype!r}, but must be torch.bfloat16, or None for float32.")
    if state_dtype and any(p.dtype == torch.float64 for p in params):
        raise ConfigError("state_dtype=torch.bfloat16 is for parameters of single or half precision, not of float64.")


def compute_dtype(params: list[Tensor]) -> torch.dtype:
    """float64 where any parameter is, else float32: half-precision parameters are stored, not computed, in half."""
    for p in params:
        if not p.is_floating_point():
            raise ConfigError(f"a parameter has dtype {p.dtype}, but must be real floating point.")
    return torch.float64 if any(p.dtype == torch.float64 for p in params) else torch.float32


def the_device(params: list[Tensor]) -> torch.device:
    """The device of the parameters, the CPU where there are none; ConfigError where they are on several."""
    devices = {p.device for p in params} or {torch.device("cpu")}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise ConfigError(f"the parameters are on several devices ({names}); use one optimizer for each device.")
    return devices.pop()

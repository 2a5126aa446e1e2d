"""How a user's parameters, groups and state meet the step: stacks of equal shapes, and views of the stacked state."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from autoranger.components.config import Config
from autoranger.components.errors import ConfigError
from autoranger.components.kernel.cpp.launch import Kernel
from autoranger.components.kernel.errors import UnavailableError, UntraceableError
from autoranger.components.kernel.interpreter.interpret import Interpreter
from autoranger.components.kernel.triton.launch import TritonKernel
from autoranger.components.rows import by_rows, can_look, from_rows, is_matrix, row_shape
from autoranger.components.step import Stack, Step
from autoranger.components.transposed import transposed

Compile = bool | Literal["auto"]
"""Whether a step is compiled: always, never, or where it can be and is known to pay (see `AUTOMATIC`)."""

BACKENDS: dict[str, type[Kernel | TritonKernel]] = {"cpu": Kernel, "cuda": TritonKernel}
"""What runs a compiled step, by the type of the device."""

AUTOMATIC = ("cpu",)
"""Where "auto" compiles. On a GPU one has to ask for it with `True`: nobody has measured it there."""

STACKED_BELOW = 1 << 16
"""Tensors of fewer numbers are stacked with others of their shape: they cost calls, larger ones cost memory traffic."""


class Numbers:
    """A step, and the numbers in an optimizer's `param_groups` as its buffers."""

    def __init__(self, config: Config, groups: list[dict[str, Any]]) -> None:
        self.groups = groups
        params = [p for group in self.groups for p in group["params"]]
        self.core = Step(
            [config],
            self.groups[0]["total_steps"],
            dtype=compute_dtype(params),
            device=the_device(params),
            groups=len(self.groups),
        )
        self.core.steps.fill_(self.groups[0]["step"])
        self.written: list[dict[str, Any]] = [{} for _ in self.groups]

    def read(self) -> None:
        """Takes over what has changed since the last time, without waiting for the device."""
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

    def rates(self) -> list[float]:
        """Learning rate times the schedules' factor at the latest step, for each group."""
        self.read()
        x = self.core.scalars()
        return [float(rate) for rate in (x.lr * x.rate)[0, :, 0, 0]]


class Bound:
    """An optimizer's parameters laid out for the step: which tensors form a stack, and their state.

    Every tensor in `state` is a view of the stacked state, so that both always agree. State that is there
    already (loaded, or of an earlier layout) is taken over.
    """

    def __init__(
        self, config: Config, groups: list[dict[str, Any]], state: dict[Tensor, Any], compile: Compile
    ) -> None:
        self.numbers = Numbers(config, groups)
        self.core = self.numbers.core
        self.members: list[list[Tensor]] = []
        self.flags = [torch.full((), present, device=self.core.lr.device) for present in (False, True)]
        self.turns: list[int] = []  # of each stack, what `rows` calls the groups of a transposed convolution
        kernels = transposed(p for group in groups for p in group["params"])
        for index, group in enumerate(groups):
            for members in alike(group["params"], kernels):
                turns, shape = kernels.get(members[0], 0), members[0].shape
                stack = self.core.add(gather(members, turns).contiguous(), matrix=is_matrix(shape, turns), group=index)
                self.members.append(members)
                self.turns.append(turns)
                adopt(stack, members, state, turns)
        self.turned = [(p, turns) for members, turns in zip(self.members, self.turns, strict=True) for p in members]
        self.every = [p for p, _ in self.turned]
        self.kinds = [kind(p) for p in self.every]
        self.kernel = kernel(self.core, self.every, compile)
        self.interpreter = None if self.kernel else interpreter(self.core, self.every)
        self.scheduled, self.taken = bool(config.needs_total_steps), int(groups[0]["step"])

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        self.numbers.read()
        # Parameters may have been replaced since, by `model.half()` for one; what is recorded is for what they were.
        recorded = self.kernel is not None or self.interpreter is not None
        fits = recorded and self.kinds == [kind(p) for p in self.every]
        if self.kernel is not None and fits and not torch.compiler.is_compiling():
            self._step_compiled(self.kernel)
        # The interpreter looks at values, which a step that somebody records or compiles must not.
        elif self.interpreter is not None and fits and can_look(self.core.lr):
            self._step_by_operations(self.interpreter)
        else:
            self._step_by_operations(self.core)
        if self.scheduled and not torch.compiler.is_compiling():
            self._warn_at_the_end()

    def _warn_at_the_end(self) -> None:
        """Says once, in the first step after the planned ones, that the schedule has left no learning rate."""
        self.taken += 1
        end = max(group["total_steps"] or 0 for group in self.numbers.groups)
        if self.taken != end + 1 or (self.core.lr.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        if max(self.numbers.rates()) <= 0:
            warnings.warn(
                f"the optimizer was built for total_steps={end}, which are over: its schedule has ended, and the "
                "learning rate of further steps is 0. Build it for the whole training.",
                stacklevel=5,
            )

    def _step_compiled(self, kernel: Kernel | TritonKernel) -> None:
        """The step in one call, on the tensors where they are; copies serve for those that are not contiguous."""
        grads = [None if p.grad is None else plain(by_rows(gradient(p), turns), p.dtype) for p, turns in self.turned]
        thetas = [plain(by_rows(p, turns), p.dtype) for p, turns in self.turned]
        kernel(thetas, grads)
        for (p, turns), theta in zip(self.turned, thetas, strict=True):
            if theta is not p:
                by_rows(p.detach(), turns).copy_(theta)
        # Autograd is to notice a backward through what has changed, as it does after any operation in place.
        increment_version([p for p in self.every if p.grad is not None])

    def _step_by_operations(self, operations: Callable[..., None]) -> None:
        """The step as operations of torch on stacks of tensors."""
        thetas, grads, masks = [], [], []
        for members, turns in zip(self.members, self.turns, strict=True):
            present = [p.grad is not None for p in members]
            thetas.append(gather(members, turns))
            grads.append(gather([gradient(p) for p in members], turns) if any(present) else None)
            partly = any(present) and not all(present)
            masks.append(torch.stack([self.flags[p] for p in present]).view(1, -1, 1, 1) if partly else None)
        operations(thetas, grads, masks)
        for members, turns, theta, grad in zip(self.members, self.turns, thetas, grads, strict=True):
            if grad is not None:
                scatter(theta, members, turns)


def kernel(core: Step, params: list[Tensor], compile: Compile) -> Kernel | TritonKernel | None:
    """The step compiled, where that is wanted and can be had; ConfigError where it must and cannot."""
    device = core.lr.device.type
    if not compile or not params or (compile == "auto" and device not in AUTOMATIC):
        return None
    try:
        require_plain(params)
        if device not in BACKENDS:
            raise UntraceableError(f"the parameters are on {device}, for which there are no kernels")
        return BACKENDS[device](core, params)
    except (UntraceableError, UnavailableError) as error:
        if compile == "auto":
            return None
        raise ConfigError(f'the step cannot be compiled: {error}; pass compile="auto" to do without.') from None


def interpreter(core: Step, params: list[Tensor]) -> Interpreter | None:
    """The step as recorded operations, where there can be any: faster than the step itself, on a CPU."""
    try:
        require_plain(params)
        return Interpreter(core, params) if core.lr.is_cpu else None
    except UntraceableError:
        return None


def require_plain(params: list[Tensor]) -> None:
    """UntraceableError where a parameter is of a subclass, of which nobody knows what it does."""
    if any(type(p) not in (Tensor, Parameter) for p in params):
        raise UntraceableError("a parameter is of a special kind")


def kind(p: Tensor) -> tuple[torch.dtype, torch.Size, torch.device]:
    """What must not change about a parameter."""
    return p.dtype, p.shape, p.device


def plain(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor whose numbers lie in memory one after another as they are: itself, or a copy."""
    if x.is_contiguous() and x.dtype == dtype and not x.is_neg():
        return x
    return x.detach().to(dtype).resolve_neg().contiguous()


def alike(params: list[Tensor], transposed: Mapping[Tensor, int]) -> list[list[Tensor]]:
    """Parameters grouped for stacking: small ones by kind, shape and dtype, large ones alone, empty ones left out."""
    stacks: dict[object, list[Tensor]] = defaultdict(list)
    for p in params:
        if p.numel():
            kind = p.shape, p.dtype, transposed.get(p, 0)
            stacks[kind if p.numel() < STACKED_BELOW else id(p)].append(p)
    return list(stacks.values())


def gather(members: list[Tensor], turns: int = 0) -> Tensor:
    """The stack `[1, B, R, C]` of equal-shaped tensors: a view where there is one contiguous tensor, else a copy."""
    rows = row_shape(members[0].shape, turns)
    if len(members) == 1:
        return by_rows(members[0].detach(), turns).reshape(1, 1, *rows)
    return torch.stack([by_rows(m.detach(), turns) for m in members]).reshape(1, len(members), *rows)


def scatter(theta: Tensor, members: list[Tensor], turns: int = 0) -> None:
    """Writes a stack back into the tensors that it was gathered from; nothing where it is a view of them."""
    if theta.data_ptr() != members[0].data_ptr():
        targets = [by_rows(m.detach(), turns) for m in members]
        torch._foreach_copy_(targets, list(theta.view(len(members), *targets[0].shape)))


def gradient(p: Tensor) -> Tensor:
    """The gradient of a parameter, zeros where it has none (the step then leaves the parameter alone)."""
    if p.grad is None:
        return torch.zeros_like(p)
    if p.grad.layout != torch.strided:
        raise ConfigError("sparse gradients are not supported; make them dense, e.g. nn.Embedding(…, sparse=False).")
    return p.grad


def adopt(stack: Stack, members: list[Tensor], state: dict[Tensor, Any], turns: int = 0) -> None:
    """Copies state that exists into the stack, and makes `state` hold views of the stack."""
    for index, p in enumerate(members):
        views = {"step": stack.count[0, index, 0, 0]}
        for component, slot in stack.by_id.items():
            for name, buffer in slot.tensors().items():
                views[f"{component}.{name}"] = from_rows(buffer[0, index], p.shape, turns)
        known = state.get(p, {})
        for name, view in views.items():
            if name in known:
                view.copy_(known[name].reshape(view.shape))
        state[p] = views


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

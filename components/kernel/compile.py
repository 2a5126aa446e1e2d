"""Compiling a step: which backend runs it on which device, and what happens where none can."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import Parameter

from autoranger.components.core.config import Compile
from autoranger.components.core.errors import ConfigError
from autoranger.components.core.step import Step
from autoranger.components.kernel.cpp.kernel import CppKernel
from autoranger.components.kernel.errors import UnavailableError, UntraceableError
from autoranger.components.kernel.kernel import Kernel
from autoranger.components.kernel.triton.kernel import TritonKernel

BACKENDS: dict[str, type[Kernel]] = {"cpu": CppKernel, "cuda": TritonKernel}
"""The class of the compiled step, by the type of the device."""


def compile_step(step: Step, params: Sequence[Tensor], compile: Compile) -> Kernel | None:
    """Compiles a step.

    Args:
        step: with all its stacks.
        params: the tensors of all stacks; see `Kernel`.
        compile: False: no; True: yes; "auto": if it is possible.

    Returns:
        The compiled step, or None if it is not to be compiled, or cannot be and `compile` is "auto".

    Raises:
        ConfigError: if it cannot be compiled and `compile` is True.
    """
    device = step.lr.device.type
    if not compile or not params:
        return None
    try:
        require_ordinary(params)
        if device not in BACKENDS:
            raise UntraceableError(f"the parameters are on {device}, for which there are no kernels")
        return BACKENDS[device](step, params)
    except (UntraceableError, UnavailableError) as error:
        if compile == "auto":
            return None
        raise ConfigError(f'the step cannot be compiled: {error}; pass compile="auto" to do without.') from None


def require_ordinary(params: Sequence[Tensor]) -> None:
    """Raises UntraceableError if any parameter is of a subclass of Tensor, which may compute in a way of its own."""
    if any(type(p) not in (Tensor, Parameter) for p in params):
        raise UntraceableError("a parameter is of a special kind")

"""Mixed precision: matrix products in bfloat16; parameters, gradients, loss and metric in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from autoranger.components.core.errors import ConfigError, first_line
from autoranger.components.core.private import tree_map

LAYERS: frozenset[Callable[..., Tensor]] = frozenset(
    [F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d]
)
"""Products with a bias. Autocast handles those without one, such as `@`."""

NORMALIZATIONS: frozenset[Callable[..., Tensor]] = frozenset([F.batch_norm, F.instance_norm])
"""Layers with statistics in float32, which vmap does not combine with a low-precision batch."""


class Layers(TorchFunctionMode):
    """Casts the inputs of layers as `torch.autocast` would, but before `vmap` takes the layers apart.

    Autocast acts on what vmap makes of a layer: a product in low precision, to which a bias is added in float32, and on
    a CPU a convolution of a name that it does not know. A normalization computes in float32 and returns what it got.
    Where a model switches autocast off, layers are as they are. Inside layers that torch itself puts together, such as
    multi-head attention, this does not act, but autocast does: products are in low precision all the same.

    Args:
        kind: of the device.
        dtype: of low precision.
    """

    def __init__(self, kind: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.kind, self.dtype = kind, dtype

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_autocast_enabled(self.kind):
            return func(*args, **kwargs)
        if func in LAYERS:
            lowered: Any = tree_map(self._lower, (args, kwargs))
            return func(*lowered[0], **lowered[1])
        if func in NORMALIZATIONS and args[0].dtype == self.dtype:
            return func(args[0].float(), *args[1:], **kwargs).to(self.dtype)
        return func(*args, **kwargs)

    def _lower(self, x: object) -> object:
        return x.to(self.dtype) if isinstance(x, Tensor) and x.dtype == torch.float32 else x


@contextmanager
def mixed(device: torch.device, precision: torch.dtype | None) -> Iterator[None]:
    """Within it a model runs in this precision, as under `torch.autocast`; unchanged if it is None."""
    if precision is None:
        yield
        return
    # No cache of casts: under vmap and in a CUDA graph it would outlive what it was made from.
    with torch.autocast(device.type, precision, cache_enabled=False), Layers(device.type, precision):
        yield


def upcast(output: Any, precision: torch.dtype | None) -> Any:
    """A model's output for its loss or metric: a low-precision tensor in float32, anything else unchanged."""
    return output.float() if isinstance(output, Tensor) and output.dtype == precision else output


def check_precision(precision: torch.dtype | None, device: torch.device, params: Iterable[Tensor]) -> None:
    """Raises ConfigError if models with these parameters cannot be called in this precision on this device."""
    if precision is None:
        return
    if precision != torch.bfloat16:
        raise ConfigError(
            f"precision is {precision!r}, but must be torch.bfloat16, or None for float32 (float16 would need losses "
            "to be scaled)."
        )
    if others := sorted({str(p.dtype) for p in params if p.dtype != torch.float32}):
        raise ConfigError(f"precision is {precision}, but the model has parameters in {others[0]}; leave it None.")
    try:
        torch.autocast(device.type, precision)
    except RuntimeError as error:
        raise ConfigError(f"precision is {precision}, but {device} cannot do that: {first_line(error)}") from None

"""Mixed precision: a model's products in bfloat16; parameters, gradients, loss and metric in float32."""

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
"""Products with a bias. Those without, such as `@`, autocast finds by itself."""

NORMALIZATIONS: frozenset[Callable[..., Tensor]] = frozenset([F.batch_norm, F.instance_norm])
"""Whose statistics are kept in float32, which vmap's rule for them does not mix with a batch in low precision."""


class Layers(TorchFunctionMode):
    """Does to layers what `torch.autocast` does to them, before `vmap` takes them apart and not after it.

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
            args, kwargs = tree_map(self._lower, (args, kwargs))
        elif func in NORMALIZATIONS and args[0].dtype == self.dtype:
            return func(args[0].float(), *args[1:], **kwargs).to(self.dtype)
        return func(*args, **kwargs)

    def _lower(self, x: object) -> object:
        return x.to(self.dtype) if isinstance(x, Tensor) and x.dtype == torch.float32 else x


@contextmanager
def mixed(device: torch.device, precision: torch.dtype | None) -> Iterator[None]:
    """Calls of a model inside are in this precision, autocast's way; as they are where it is None."""
    if precision is None:
        yield
        return
    # No cache of casts: under vmap and in a CUDA graph it would outlive what it was made from.
    with torch.autocast(device.type, precision, cache_enabled=False), Layers(device.type, precision):
        yield


def full(output: Any, precision: torch.dtype | None) -> Any:
    """A model's output for its loss or metric: a tensor of low precision in float32, all else as it is."""
    return output.float() if isinstance(output, Tensor) and output.dtype == precision else output


def check_precision(precision: torch.dtype | None, device: torch.device, params: Iterable[Tensor]) -> None:
    """ConfigError where models with these parameters cannot be called in this precision on this device."""
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

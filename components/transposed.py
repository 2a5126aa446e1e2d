"""Which parameters are kernels of transposed convolutions, whose output units are their second dimension.

A tensor does not say what it is for, but the layer that it belongs to does.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd


def transposed(parameters: Iterable[Tensor], layers: Iterable[nn.Module] | None = None) -> dict[Tensor, int]:
    """The kernels of transposed convolutions among some parameters, and in how many groups each is.

    Args:
        parameters: to choose from.
        layers: where they may belong; where None, all that there are, since an optimizer is given parameters alone.
    """
    kernels = {p for p in parameters if 3 <= p.dim() <= 5}
    found: dict[Tensor, int] = {}
    if kernels:  # else there is nothing to look for, which takes some hundredths of a second
        for layer in everywhere() if layers is None else layers:
            if isinstance(layer, _ConvTransposeNd):
                shape = layer.in_channels, layer.out_channels // layer.groups, *layer.kernel_size
                # All of them, since a reparametrization (`weight_norm`, for one) has the kernel under other names.
                found |= {p: layer.groups for p in layer.parameters() if p in kernels and p.shape == shape}
    return found


def everywhere() -> Iterator[nn.Module]:
    """All modules that there are."""
    for candidate in gc.get_objects():
        if issubclass(type(candidate), nn.Module):  # `isinstance` would ask proxies, of which some are dead
            yield candidate

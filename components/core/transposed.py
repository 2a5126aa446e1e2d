"""Which parameters are kernels of transposed convolutions, whose output units are their second dimension.

A tensor does not say what it is for, but the layer that it belongs to does.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

TRANSPOSED = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d

KNOWN = WeakTensorKeyDictionary()
"""What has been found: for many small optimizers, looking through all layers once for each would take seconds."""


def transposed(parameters: Iterable[Tensor], layers: Iterable[nn.Module] | None = None) -> dict[Tensor, int]:
    """The kernels of transposed convolutions among some parameters, and in how many groups each is.

    Args:
        parameters: to choose from.
        layers: where they may belong; where None, all that there are, since an optimizer is given parameters alone.
    """
    candidates = [p for p in parameters if 3 <= p.dim() <= 5]
    if layers is not None:
        found = dict(kernels(layers))
        return {p: found[p] for p in candidates if p in found}
    if any(p not in KNOWN for p in candidates):
        modules = list(everywhere())
        others = (p for module in modules for p in module.parameters(recurse=False))
        for p in (*candidates, *others):
            KNOWN[p] = 0
        for p, groups in kernels(modules):
            KNOWN[p] = groups
    return {p: KNOWN[p] for p in candidates if KNOWN[p]}


def kernels(layers: Iterable[nn.Module]) -> Iterator[tuple[Tensor, int]]:
    """The kernels in these layers, and the groups of each."""
    for layer in layers:
        if isinstance(layer, TRANSPOSED):
            shape = layer.in_channels, layer.out_channels // layer.groups, *layer.kernel_size
            # All of them, since a reparametrization (`weight_norm`, for one) has the kernel under other names.
            yield from ((p, layer.groups) for p in layer.parameters() if p.shape == shape)


def everywhere() -> Iterator[nn.Module]:
    """All modules that there are."""
    for candidate in gc.get_objects():
        if issubclass(type(candidate), nn.Module):  # `isinstance` would ask proxies, of which some are dead
            yield candidate

"""What a config was found on: the shapes of that model, its depth, the batch size and the length of its trainings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from autoranger.components.core.errors import ConfigError, require_count
from autoranger.components.core.hyper import plain_number
from autoranger.components.core.kinds import check_kind, kinds_of
from autoranger.components.core.rows import row_shape
from autoranger.components.core.transposed import transposed

Proxy = Mapping[str, Any]
"""`batch_size`, `steps`, `depth`, `examples` of the training data, and `layers`: for each parameter, by its name (see
`any_block`), its `Shape`."""


BLOCK = re.compile(r"(?<![^.])\d+(?=\.[^.]+\.)")
"""The number of a block in the name of a parameter; a layer that is numbered itself is none."""


class Shape(NamedTuple):
    """What scale laws ask of a parameter.

    Args:
        kind: of the parameter.
        fan_in: how many numbers each output is a sum over; 1 for embeddings and vectors.
        fan_out: how many outputs there are.
        gain: standard deviation of its numbers times √fan_in; 0 for vectors.
    """

    kind: str
    fan_in: int
    fan_out: int
    gain: float


def shapes_of(model: nn.Module, kinds: Mapping[str, str] | None = None) -> dict[str, Shape]:
    """The shape of each of a model's parameters, by its name; the weights are as they are now."""
    kinds = kinds_of(model) if kinds is None else kinds
    kernels, turned = transposed(model.parameters(), model.modules()), set()
    for module in model.modules():
        if hasattr(module, "nf") and isinstance(weight := getattr(module, "weight", None), Tensor):
            turned.add(weight)  # of transformers' Conv1D, a linear layer with its weights turned
    return {name: shape_of(p, kinds[name], kernels.get(p, 0), p in turned) for name, p in model.named_parameters()}


def shape_of(p: Tensor, kind: str, conv_groups: int, turned: bool) -> Shape:
    """The shape of one parameter."""
    if kind == "vector" or p.dim() < 2:
        return Shape(kind, 1, p.numel(), 0.0)
    rows, columns = row_shape(p.shape, conv_groups)
    if kind == "embedding":
        return Shape(kind, 1, p.shape[-1], spread(p, 1))
    rows, columns = (columns, rows) if turned else (rows, columns)
    return Shape(kind, columns, rows, spread(p, columns))


@torch.no_grad()
def spread(p: Tensor, fan_in: int) -> float:
    """The standard deviation of a parameter's numbers about zero, times √fan_in; 0 where nothing is known of them."""
    if p.is_meta or not p.numel():
        return 0.0
    return float(p.detach().float().square().mean().sqrt()) * math.sqrt(fan_in)


def depth_of(names: Iterable[str]) -> int:
    """How many blocks a model has: the most numbers that stand at one place in names of parameters."""
    found: dict[str, set[str]] = {}
    for name in names:
        for match in BLOCK.finditer(name):
            place = any_block(name[: match.start()]) + "*" + any_block(name[match.end() :])
            found.setdefault(place, set()).add(match[0])
    return max(map(len, found.values()), default=1)


def any_block(name: str) -> str:
    """A name with stars for the numbers of blocks: `blocks.3.mlp.0.weight` becomes `blocks.*.mlp.0.weight`."""
    return BLOCK.sub("*", name)


def proxy_of(model: nn.Module, batch_size: int | None, steps: int, examples: int | None = None) -> dict[str, Any]:
    """The record of a proxy, for the file of a config that was found on it; without what is not known."""
    shapes = shapes_of(model)
    alike: dict[str, set[tuple[str, int, int]]] = {}
    for name, shape in shapes.items():
        alike.setdefault(any_block(name), set()).add(shape[:3])
    # One entry for all blocks where these are equal.
    layers = {name if len(alike[any_block(name)]) > 1 else any_block(name): shape for name, shape in shapes.items()}
    record = {"steps": steps, "depth": depth_of(shapes), "batch_size": batch_size, "examples": examples}
    record = {name: number for name, number in record.items() if number}
    return record | {"layers": {name: shape._asdict() for name, shape in layers.items()}}


def check_proxy(given: object) -> dict[str, Any]:
    """A record as `proxy_of` makes it; ConfigError where it is not one."""
    if not isinstance(given, Mapping):
        raise ConfigError("proxy must be a table, as a search writes it.")
    record = dict(given)
    layers = record.pop("layers", {})
    for name, value in record.items():
        if name not in ("batch_size", "steps", "depth", "examples"):
            raise ConfigError(f"proxy.{name} is unknown; a proxy has batch_size, steps, depth, examples and layers.")
        require_count(f"proxy.{name}", value)
    if not isinstance(layers, Mapping):
        raise ConfigError("proxy.layers must be a table with an entry for each parameter.")
    checked = {name: check_layer(layer, f"proxy.layers.{name}") for name, layer in layers.items()}
    return record | ({"layers": checked} if checked else {})


def check_layer(given: object, where: str) -> dict[str, Any]:
    """The entry of a parameter; ConfigError where it is not one."""
    if not isinstance(given, Mapping) or given.keys() != set(Shape._fields):
        raise ConfigError(f"{where} must be a table with {', '.join(Shape._fields)}.")
    check_kind(given["kind"])
    for name in ("fan_in", "fan_out", "gain"):
        value = plain_number(given[name])
        if value is None or value < (name != "gain"):
            raise ConfigError(f"{where}.{name} is {given[name]!r}, but must be a number from {int(name != 'gain')}.")
    return dict(given)

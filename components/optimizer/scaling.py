"""Building for another scale than a config was found at: which laws act on which parameters, and what comes of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from autoranger.components.core import laws
from autoranger.components.core.by_kind import names
from autoranger.components.core.config import Config
from autoranger.components.core.degrees import degrees_of
from autoranger.components.core.kinds import KINDS, kinds_of, renamed, tables_of
from autoranger.components.core.proxy import Proxy, Shape, any_block, depth_of, shapes_of
from autoranger.components.optimizer.groups import Group

MOST = 2.0
"""How many times another gain an initialization may have before somebody is told."""


@dataclass
class Scaling:
    """A model's parameter groups, scaled from a config's proxy, and how they came about.

    Attributes:
        groups: one for each kind, and for each set of factors; `laws` in a group has the factors on its rate.
        notes: what could not be scaled, and what a law assumes that does not hold, in sentences.
    """

    groups: list[Group]
    notes: list[str] = field(default_factory=list)


def scaled(
    model: nn.Module, config: Config, total_steps: int | None, batch_size: int | None, examples: int | None = None
) -> Scaling:
    """The parameter groups of a model for a config, as its laws have them at this scale.

    Without a record of the proxy, or of a number, the laws that need it do not act.

    Args:
        model: to train.
        config: with its `proxy`.
        total_steps, batch_size: of the training, where known.
        examples: of its data; None for those of the proxy.
    """
    kinds = renamed(kinds_of(model), names(config.kinds))
    shapes, notes = shapes_of(model, kinds), list[str]()
    common = of_training(config, total_steps, batch_size, notes)
    blocks = depth_of(shapes) / config.proxy["depth"] if "depth" in config.proxy else 1.0
    ratios, tables = fans(config.proxy.get("layers", {}), shapes, notes), tables_of(model)
    members: dict[tuple[str, tuple[tuple[str, float], ...]], list[Any]] = defaultdict(list)
    for name, p in model.named_parameters():
        kind, (fan_in, fan_out) = shapes[name].kind, ratios.get(name, (1.0, 1.0))
        fan_in = 1.0 if kind == "head" and p in tables else fan_in  # a table's rate does not fall with the width
        degrees = degrees_of(config.of(kind))
        factors = {
            "width": laws.width(kind, fan_in, fan_out, degrees),
            "depth": laws.depth(kind, blocks, degrees),
            **{law: factor[kind] for law, factor in common.items()},
        }
        acting = tuple((law, factor) for law, factor in factors.items() if not math.isclose(factor, 1.0))
        members[kind, acting].append((name, p))
    once = first_pass(config.proxy, total_steps, batch_size, examples)
    order = sorted(members, key=lambda key: [*KINDS].index(key[0]))
    return Scaling([group(config, kind, acting, members[kind, acting], once) for kind, acting in order], notes)


def by_parameter(
    model: nn.Module, config: Config, total_steps: int | None, batch_size: int | None
) -> dict[str, Config]:
    """The config of each parameter of a model, by its name, as `scaled` has it."""
    found: dict[str, Config] = {}
    for group in scaled(model, config, total_steps, batch_size).groups:
        own = config.of(group["kind"])
        rate, decay = own.lr * group.get("lr_factor", 1.0), group.get("weight_decay", own.weight_decay)
        at_scale = replace(own, lr=rate, weight_decay=decay, proxy={})
        found |= dict.fromkeys((name for name, _ in group["params"]), at_scale)
    return found


def group(
    config: Config, kind: str, acting: tuple[tuple[str, float], ...], members: list[Any], once: tuple[float, float]
) -> Group:
    """The group of some parameters of a kind, for all of which the same laws act; `once` is of `first_pass`."""
    found: Group = {"params": members, "kind": kind}
    if acting:
        found |= {"lr_factor": math.prod(factor for _, factor in acting), "laws": dict(acting)}
    rate = math.prod(factor for law, factor in acting if law != "length") * laws.length(*once)
    factor = laws.decay(rate, once[1])
    if not math.isclose(factor, 1.0):
        found["weight_decay"] = config.of(kind).weight_decay * factor
    return found


def first_pass(
    proxy: Proxy, total_steps: int | None, batch_size: int | None, examples: int | None
) -> tuple[float, float]:
    """The ratios of batch size and of steps, as far as the data are new: those of the first pass over them.

    Where it is not known how many examples the proxy had, all may be new or all repeated. Then it is that of the two
    which changes less.
    """
    size = ratio(proxy, "batch_size", batch_size)
    if not {"steps", "batch_size", "examples"} <= proxy.keys():
        return size, sorted((1.0, ratio(proxy, "steps", total_steps), 1 / size))[1]
    theirs = min(proxy["steps"], proxy["examples"] / proxy["batch_size"])
    whole = (examples or proxy["examples"]) / (batch_size or proxy["batch_size"])
    return size, min(total_steps or proxy["steps"], whole) / theirs


def ratio(proxy: Proxy, name: str, ours: int | None) -> float:
    """A number of the training over that of the proxy; 1 where one of them is not known."""
    return ours / proxy[name] if ours and name in proxy else 1.0


def of_training(
    config: Config, total_steps: int | None, batch_size: int | None, notes: list[str]
) -> dict[str, dict[str, float]]:
    """What batch size and length do to the rate of each kind, by law."""
    proxy, found = config.proxy, dict[str, dict[str, float]]()
    for name, ours, argument in (("batch_size", batch_size, "batch_size=…"), ("steps", total_steps, "total_steps=…")):
        if name in proxy and ours is None:
            notes.append(f"{argument} is not said, so that it counts as the proxy's {proxy[name]:,}.")
        elif name not in proxy:
            notes.append(f"the file does not say what the proxy's {name} was, so that nothing is scaled by it.")
    size, steps = ratio(proxy, "batch_size", batch_size), ratio(proxy, "steps", total_steps)
    if steps > 1 and "examples" not in proxy:
        notes.append("the file does not say how many examples there were; they count as repeated in a longer training.")
    found["batch"] = {kind: laws.batch(size, degrees_of(config.of(kind))) for kind in KINDS}
    found["length"] = dict.fromkeys(KINDS, laws.length(size, steps))
    return found


def fans(
    layers: Mapping[str, Mapping[str, Any]], shapes: Mapping[str, Shape], notes: list[str]
) -> dict[str, tuple[float, float]]:
    """For each parameter its fan-in and fan-out over those of the proxy's parameter of that name.

    One that the proxy does not have is compared with the proxy's others of its kind.
    """
    known = {name: Shape(**layer) for name, layer in layers.items()}
    found: dict[str, tuple[float, float]] = {}
    strangers = []
    for name, shape in shapes.items():
        other = known.get(name) or known.get(any_block(name))
        if other is None or other.kind != shape.kind:
            alike = [layer for layer in known.values() if layer.kind == shape.kind]
            if known:
                strangers.append(name)
            if not alike:
                continue
            other = Shape(shape.kind, mean(s.fan_in for s in alike), mean(s.fan_out for s in alike), 0.0)  # type: ignore[arg-type]
        found[name] = shape.fan_in / other.fan_in, shape.fan_out / other.fan_out
        if shape.kind == "hidden" and other.gain and not 1 / MOST < shape.gain / other.gain < MOST:
            notes.append(
                f"{name} has {shape.gain / other.gain:.2g} times the proxy's standard deviation × √fan_in; the law of "
                "width assumes that they are alike, so its factor may be off."
            )
    if strangers:
        notes.append(
            f"the proxy has no parameter like {strangers[0]}"
            + (f" and {len(strangers) - 1} more" if len(strangers) > 1 else "")
            + "; scaled by the mean of its kind."
        )
    return found


def mean(values: Iterable[float]) -> float:
    """The geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))

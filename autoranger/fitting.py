"""What a config's optimizer is for a model: `autoranger show tuned.toml --for my_model.py:make`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from torch import nn

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError, reason, require_count, unknown
from autoranger.components.core.proxy import any_block
from autoranger.components.optimizer.arrange import arrange
from autoranger.components.optimizer.optimizer import ComposedOptimizer
from autoranger.components.optimizer.scaling import scaled
from autoranger.search.tasks import is_file, load_file, load_module, split
from autoranger.search.transfer import Transfer


@dataclass(frozen=True)
class Part:
    """A parameter group.

    Attributes:
        kind: of its parameters.
        tensors: their names.
        parameters: how many numbers they have.
        lr, weight_decay: of the group.
        laws: the factors on the rate, by the law that they are from.
        components: what is on.
    """

    kind: str
    tensors: tuple[str, ...]
    parameters: int
    lr: float
    weight_decay: float
    laws: dict[str, float]
    components: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """All groups, and what there is to say about their scaling."""

    parts: list[Part]
    notes: list[str]


def model_of(spec: str) -> nn.Module:
    """The model that `file.py:make` or `module:make` is, or makes without arguments; ConfigError where it does not."""
    place, name = split(spec)
    if not name:
        raise ConfigError(f"{spec} names no model; write {spec}:make, with a function or class that makes one.")
    module = load_file(Path(place), "model") if is_file(place) else load_module(place)
    if name not in vars(module):
        raise unknown("name", name, [n for n, x in vars(module).items() if callable(x)], f"in {place}")
    found = vars(module)[name]
    if not isinstance(found, nn.Module):
        try:
            with torch.random.fork_rng():
                found = found()
        except Exception as error:
            raise ConfigError(f"{spec} makes no model without arguments ({reason(error)}).") from error
    if not isinstance(found, nn.Module):
        raise ConfigError(f"{spec} makes a {type(found).__name__}; it must make an nn.Module.")
    return found


def fit(config: Config, model: nn.Module, steps: int | None, batch_size: int | None) -> Fit:
    """The parameter groups of a config for a model, as `Config.build` makes them."""
    if batch_size is not None:
        require_count("batch_size", batch_size)
    scaling = scaled(model, config, steps, batch_size) if config.proxy else None
    groups: list[Any] = scaling.groups if scaling else arrange(model, config)
    optimizer = ComposedOptimizer(groups, config, total_steps=steps or 1)
    parts = [
        Part(
            kind=group["kind"],
            tensors=tuple(group["param_names"]),
            parameters=sum(p.numel() for p in group["params"]),
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            laws=group.get("laws", {}),
            components=tuple(group["components"] or ()),
        )
        for group in optimizer.param_groups
    ]
    return Fit(parts, scaling.notes if scaling else [])


def print_fit(console: Console, config: Config, found: Fit) -> None:
    """Prints the groups as a table, what is on or off in one alone, and the notes."""
    numbers = (Column(name, justify="right", no_wrap=True) for name in ("tensors", "parameters", "lr", "decay"))
    table = Table(Column("kind", no_wrap=True), *numbers, "laws of the rate", box=None, pad_edge=False)
    for part in found.parts:
        laws = "  ".join(f"{law} × {factor:.3g}" for law, factor in part.laws.items())
        values = f"{len(part.tensors)}", f"{part.parameters:,}", f"{part.lr:.3g}", f"{part.weight_decay:.3g}"
        table.add_row(part.kind, *values, laws)
    console.print(table, highlight=False)
    for part in found.parts:
        called = dict.fromkeys(map(any_block, part.tensors))
        console.print(f"[dim]{part.kind}: {escape(', '.join(called))}[/]", highlight=False)
    for part in found.parts:
        off = [name for name in config.components if name not in part.components]
        on = [name for name in part.components if name not in config.components]
        if off or on:
            words = [f"without {', '.join(off)}"] * bool(off) + [f"with {', '.join(on)}"] * bool(on)
            console.print(f"{part.kind}: {'; '.join(words)}", highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(escape(note), highlight=False, soft_wrap=True)
    console.print()


def print_transfer(console: Console, config: Config, found: Transfer, metric: str) -> None:
    """Prints what was trained at which scale, and the prediction."""
    numbers = (Column(name, justify="right", no_wrap=True) for name in ("width", "batch", "steps", "best rate", metric))
    table = Table(*numbers, box=None, pad_edge=False)
    for stop in found.stops:
        rate, best = config.lr * 10**stop.best, max(value for value in stop.values if value == value)
        table.add_row(f"× {stop.scale:.3g}", f"{stop.batch_size}", f"{stop.steps:,}", f"{rate:.3g}", f"{best:.4f}")
    console.print(table, highlight=False)
    target = f"width × {found.scale:g}, batch size {found.batch_size}, {found.steps:,} steps"
    lines = [
        f"Best rate for {target}: lr {found.lr:.3g}, 90 % between {found.low:.3g} and {found.high:.3g}.",
        f"The config has {config.lr:.3g}. All are base rates, from which build(model, …) scales by the laws.",
    ]
    if not found.holds:
        lines.append(
            f"The scale laws do not hold here: the best rate leaves them on the way, {10 ** found.drift[0]:.2g} times. "
            "The prediction follows what was measured; sweep the rate at the real scale if you can."
        )
    if not found.noted:
        lines.append("The config does not say what it was found on; the task as it is counts as its proxy.")
    console.print(escape("\n".join(lines)), highlight=False, soft_wrap=True)

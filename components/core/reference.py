"""What describes components and presets, made from their own docstrings and declarations: a page, and plain data."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch

from autoranger.components.core.chain import bytes_per_number
from autoranger.components.core.component import Component, Hyper, Stage
from autoranger.components.core.config import Config
from autoranger.components.presets import PRESETS, RANGER21, Preset

HEAD = """# Components and presets

Made by `make pages` from the components' docstrings: edit those.

Symbols: θ parameters, g gradient, m and v its first and second moment (with a hat: corrected for bias), η learning
rate, t the step from 1, T the steps of the whole training, λ weight decay. A row is one output unit: a kernel
`[O, I, kh, kw]` is O rows, and so is a transposed convolution's `[I, O, kh, kw]`; a matrix is its rows, a vector is one
row. With every component off the optimizer is AdamW: θ ← θ − η·(m̂/(√v̂ + ε) + λ·θ).

AdamW keeps two numbers of state for each number of a parameter, 8 bytes in single precision; full Ranger21 keeps five,
20 bytes. With `state_dtype=torch.bfloat16` these are 4 and 12: copies of weights stay in single precision. "State" is
what a component adds to AdamW's.

Components act in the order of this page. Two that exclude each other cannot both be on.
"""

STAGES = {
    Stage.RATE: "Rate: schedules, which know scalars only; several combine by the smallest factor",
    Stage.GRADIENT: "Gradient: before anything else has seen it",
    Stage.MOMENTUM: "Momentum: the first and second moment",
    Stage.DENOMINATOR: "Denominator: what the first moment is divided by",
    Stage.DIRECTION: "Direction: where the step goes, before decay",
    Stage.DECAY: "Decay: the factor on the weight decay",
    Stage.UPDATE: "Update: direction and decay together",
    Stage.WEIGHTS: "Weights: the parameters after the update",
}


def markdown(components: Iterable[type[Component]]) -> str:
    """The page of these components, which are in the order in which they act."""
    every, parts = list(components), [HEAD]
    for stage, some in groupby(every, key=lambda cls: cls.stage):
        parts += [f"## {STAGES[stage]}\n", *(section(cls, every) for cls in some)]
    parts += ["## Presets\n", *(preset_section(name, preset) for name, preset in PRESETS.items())]
    return "\n".join(parts)


def described(cls: type[Component]) -> dict[str, Any]:
    """A component as plain data."""
    hypers = {
        h.name: {"default": h.default, "valid": h.domain, "search": None if h.low is None else [h.low, h.high]}
        for h in cls.hypers.values()
    }
    about = {"stage": cls.stage.name.lower(), "summary": cls.summary(), "source": cls.source}
    facts = {"needs_total_steps": cls.needs_total_steps, "bytes_per_number": extra_bytes(cls)}
    facts["bytes_per_number_with_bfloat16"] = extra_bytes(cls, torch.bfloat16)
    return about | facts | {"hyperparameters": hypers}


def extra_bytes(cls: type[Component], state_dtype: torch.dtype = torch.float32) -> int:
    """Bytes of state for each number of a parameter that a component adds to AdamW's 8, which are 4 in bfloat16.

    Negative where it replaces more of AdamW's state than it keeps itself.
    """
    alone = Config(components={cls.id: {}})
    return bytes_per_number(alone, state_dtype) - bytes_per_number(Config(), state_dtype)


def extra_state(cls: type[Component]) -> str:
    """`extra_bytes` in words; empty where there are none."""
    single, short = extra_bytes(cls), extra_bytes(cls, torch.bfloat16)
    return f"{single:+d} bytes a number, {short:+d} with bfloat16" if single or short else ""


def section(cls: type[Component], every: Iterable[type[Component]]) -> str:
    """One component: what it does, its hyperparameters, what it does not go with, its source."""
    facts = [f"Source: {link(cls.source)}."]
    if cls.id in RANGER21:
        facts.append("One of Ranger21's eight.")
    if extra := extra_state(cls):
        facts.append(f"State: {extra}.")
    if cls.needs_total_steps:
        facts.append("Needs `total_steps`.")
    if excluded := [other.id for other in every if cls.excludes(other)]:
        facts.append(f"Excludes {code(excluded)}.")
    parts = [f"### `{cls.id}`\n", f"{inspect.getdoc(cls)}\n"]
    if cls.hypers:
        rows = [f"| `{name}` | {short(h.default)} | {searched(h)} | {h.domain} |" for name, h in cls.hypers.items()]
        parts.append("\n".join(["| hyperparameter | default | searched | valid |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join([*parts, " ".join(facts) + "\n"])


def preset_section(name: str, preset: Preset) -> str:
    """One preset: what it is, and its fields that differ from AdamW's."""
    numbers = [f"{key} {short(value)}" for key, value in preset.fields.items() if key != "components"]
    chosen = [
        f"`{key}`"
        + (f" ({', '.join(f'{k} {short(v)}' for k, v in value.items())})" if isinstance(value, dict) and value else "")
        for key, value in preset.fields.get("components", {}).items()
    ]
    return f"### `{name}`\n\n{preset.summary} Source: {link(preset.source)}.\n\n{', '.join(numbers + chosen)}\n"


def searched(hyper: Hyper) -> str:
    """The range that a search explores, in words."""
    if hyper.choices:
        return "all"
    if hyper.low is None or hyper.high is None:
        return "no"
    return f"{short(hyper.low)} to {short(hyper.high)}" + (", logarithmic" if hyper.log else "")


def short(value: object) -> str:
    """A value as short as it can be written."""
    if isinstance(value, tuple):
        return f"({', '.join(map(short, value))})"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def code(names: Iterable[str]) -> str:
    """Names in a row."""
    return ", ".join(f"`{name}`" for name in names)


def link(source: str) -> str:
    """A source as a link."""
    return re.sub(r"^arXiv (\S+)$", r"[arXiv \1](https://arxiv.org/abs/\1)", source)

"""Dataclasses as plain data for JSON and TOML, and back, with checks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from autoranger.components.core.errors import ConfigError

T = TypeVar("T")

NUMBERS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
"""What a value of each type is called in a message."""


def to_json(value: Any) -> Any:
    """A value as it comes back from JSON: tuples become lists, and numbers that are not finite become None."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def to_toml(record: Any) -> dict[str, Any]:
    """A dataclass as a table for TOML, without what is None."""
    return cast(dict[str, Any], without_none(asdict(record)))


def without_none(value: Any) -> Any:
    """Nested mappings without their entries that are None."""
    if isinstance(value, Mapping):
        return {key: without_none(entry) for key, entry in value.items() if entry is not None}
    return [without_none(entry) for entry in value] if isinstance(value, list | tuple) else value


def from_data(cls: type[T], data: Any, name: str) -> T:
    """An instance of a dataclass from the data that `to_json` or `to_toml` makes of one; unknown keys are ignored.

    Args:
        cls: a dataclass whose fields are numbers, texts, tuples, mappings, dataclasses, or `X | None`.
        data: a mapping.
        name: what to call it in messages.

    Raises:
        ConfigError: if something is missing or of another type.
    """
    return cast(T, parse(cls, data, name))


def parse(kind: Any, value: Any, name: str) -> Any:
    """`value` as a `kind`; see `from_data`."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is UnionType:  # X | None
        (some,) = (choice for choice in inner if choice is not NoneType)
        return None if value is None else parse(some, value, name)
    if is_dataclass(kind):
        hints, found = get_type_hints(kind), {}
        for field in fields(kind):
            place, optional = f"{name}.{field.name}", NoneType in get_args(hints[field.name])
            if field.name in require(Mapping, value, name, "a table"):
                found[field.name] = parse(hints[field.name], value[field.name], place)
            elif optional:
                found[field.name] = None
            elif field.default is MISSING:
                raise ConfigError(f"{place} is missing.")
        return cast(Any, kind)(**found)
    if origin is tuple:
        entries = require(list | tuple, value, name, "a list")
        kinds = [inner[0]] * len(entries) if inner[-1] is Ellipsis else inner
        if len(kinds) != len(entries):
            raise ConfigError(f"{name} has {len(entries)} entries, but must have {len(kinds)}.")
        return tuple(parse(k, entry, f"{name}[{i}]") for i, (k, entry) in enumerate(zip(kinds, entries, strict=True)))
    if origin is not None:  # Mapping[str, X]
        table = require(Mapping, value, name, "a table")
        return {key: parse(inner[1], entry, f"{name}.{key}") for key, entry in table.items()}
    if kind is float and value is None:  # JSON has nothing else for what is not finite
        return math.nan
    right = int | float if kind is float else kind
    if isinstance(value, bool) and kind is not bool:
        right = NoneType
    return kind(require(right, value, name, NUMBERS[kind]))


def require(kind: Any, value: Any, name: str, words: str) -> Any:
    """`value`; raises ConfigError if it is not of that type."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {value!r}, but must be {words}.")
    return value

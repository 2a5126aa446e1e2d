"""What a config says of single kinds of parameters: the tables `[kinds.vector]` and so on of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autoranger.components.core.component import registry
from autoranger.components.core.errors import ConfigError, unknown
from autoranger.components.core.hyper import plain_number
from autoranger.components.core.kinds import check_kind

ByKind = Mapping[str, Mapping[str, Any]]
"""For some kinds what is theirs: see `FIELDS`."""


def number(value: object, where: str) -> float:
    """`value` as a float from 0; ConfigError otherwise."""
    plain = plain_number(value)
    if plain is None or plain < 0:
        raise ConfigError(f"{where} is {value!r}, but must be a number from 0.")
    return float(plain)


def patterns(value: object, where: str) -> list[str]:
    """`value` as a list of patterns; ConfigError otherwise."""
    if not isinstance(value, list | tuple) or not all(isinstance(pattern, str) for pattern in value):
        raise ConfigError(f'{where} is {value!r}, but must be a list of patterns, such as ["*.adapter.*"].')
    return [*value]


def switches(value: object, where: str) -> dict[str, Any]:
    """`value` as a table of components; ConfigError otherwise."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {value!r}, but must be a table, such as {{lookahead = false}}.")
    return {name: dict(own) if isinstance(own, Mapping) else own for name, own in value.items()}


FIELDS: dict[str, Callable[[object, str], Any]] = {
    "lr_factor": number,
    "weight_decay": number,
    "components": switches,
    "names": patterns,
}
"""What can be said of a kind: a factor on the rate, its own weight decay, components in place of those of all (False
for off), and patterns of names that are of it."""


def check(kinds: object) -> dict[str, dict[str, Any]]:
    """What a config says of kinds, checked; ConfigError on a kind or a field that does not exist, or a wrong value."""
    if not isinstance(kinds, Mapping):
        raise ConfigError("kinds must be a table with an entry for each kind of parameters that differs from the rest.")
    found = dict[str, dict[str, Any]]()
    for kind, table in kinds.items():
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"kinds.{check_kind(kind)} is {table!r}, but must be a table, such as {{weight_decay = 0}}."
            )
        for name in table:
            if name not in FIELDS:
                raise unknown("key", name, FIELDS, f"of kinds.{check_kind(kind)}")
        found[check_kind(kind)] = {
            name: read(table[name], f"kinds.{kind}.{name}") for name, read in FIELDS.items() if name in table
        }
    return {kind: found[kind] for kind in sorted(found) if found[kind]}


def frozen(kinds: ByKind) -> tuple[Any, ...]:
    """The same, to be hashed."""
    return tuple((kind, tuple((name, str(value)) for name, value in table.items())) for kind, table in kinds.items())


def names(kinds: ByKind) -> dict[str, list[str]]:
    """The patterns of names for each kind that has some."""
    return {kind: table["names"] for kind, table in kinds.items() if "names" in table}


def of(kinds: ByKind, fields: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    """The `fields` of a config as they are for one kind of parameters; what has no kind has all components."""
    table = kinds.get(kind or "", {})
    meant = {name: settings for name, settings in fields["components"].items() if is_for(name, kind)}
    return {
        "lr": fields["lr"] * table.get("lr_factor", 1.0),
        "weight_decay": table.get("weight_decay", fields["weight_decay"]),
        "components": meant | table.get("components", {}),
        "kinds": {},
    }


def is_for(component: str, kind: str | None) -> bool:
    """Whether a component is for parameters of this kind."""
    kinds = registry[component].kinds
    return kind is None or not kinds or kind in kinds

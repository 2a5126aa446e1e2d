"""A config in other forms: TOML that explains each line, Python code, and JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pprint import pformat
from typing import Any

import tomli_w

from autoranger.components.core.component import Component, Role, registry

EXPLAINED = {
    "lr": "learning rate, as found with the proxy; try two or three around it in your training",
    "betas": "decay rates of the first and the second moment",
    "eps": "added to the denominator",
    "weight_decay": "decoupled weight decay",
    "kinds": "what differs for kinds of parameters",
    "proxy": "the model that this was found with, from which rates are carried over to a larger one",
}
"""What the fields of a config are."""

WIDTH = 100
"""Columns of the text, at most."""

Plain = Mapping[str, Any]
"""A config as `Config.to_dict` gives it. Its components need not be known on this machine."""


def to_toml(config: Plain) -> str:
    """The file of a config, with a comment for each line; what is read back is the same config."""
    tables = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    lines = [commented(key, value, EXPLAINED.get(key, "")) for key, value in config.items() if key not in tables]
    for name, settings in tables.get("components", {}).items():
        cls = registry.get(name)
        lines += ["", *about(cls), f"[components.{toml_key(name)}]"]
        lines += [commented(key, value, meaning(cls, key)) for key, value in settings.items()]
    for key, table in tables.items():
        if key != "components" and table:
            lines += ["", *([f"# {EXPLAINED[key]}"] if key in EXPLAINED else []), tomli_w.dumps({key: table}).rstrip()]
    return "\n".join(lines) + "\n"


def to_python(config: Plain) -> str:
    """Code that builds the same optimizer."""
    lines = ["from autoranger import Config", "", "config = Config("]
    for key, value in config.items():
        if key == "components":
            lines.append("    components={")
            for name, settings in value.items():
                lines += [f"        # {line}" for line in summary(registry.get(name))]
                lines.append(f"        {name!r}: {dict(settings)!r},")
            lines.append("    },")
        else:
            shown = pformat(tuple(value) if isinstance(value, list) else value, width=WIDTH, sort_dicts=False)
            comment = f"# {EXPLAINED[key]}" if key in EXPLAINED else ""
            if "\n" in shown:
                lines += [f"    {comment}", textwrap.indent(f"{key}={shown},", "    ")]
            else:
                lines.append(f"    {key}={shown},  {comment}".rstrip())
    known = [registry[name] for name in config.get("components", {}) if name in registry]
    call = build_call(timed=any(cls.needs_total_steps for cls in known), proxy=config.get("proxy"))
    lines += [")", f"optimizer = config.{call}"]
    if any(Role.EVALUATION in cls.replaces for cls in known):
        lines += ["# Validate and save inside of: with optimizer.evaluation():"]
    return "\n".join([*lines, ""])


def build_call(*, timed: bool, proxy: Plain | None) -> str:
    """The call that builds a config's optimizer.

    Args:
        timed: whether a component needs to know the length of the training.
        proxy: what it was found on; if that is known, rates are scaled, for which it takes the model itself.
    """
    total = ", total_steps=epochs * len(loader)" if timed or proxy else ""
    size = ", batch_size=loader.batch_size" if proxy and "batch_size" in proxy else ""
    return f"build(model{total}{size})" if proxy else f"build(model.parameters(){total})"


def to_json_text(config: Plain) -> str:
    """The config as a JSON document."""
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Plain], str]] = {"toml": to_toml, "python": to_python, "json": to_json_text}
"""Forms by name."""


def commented(key: str, value: object, comment: str) -> str:
    """A line of TOML."""
    shown = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else tomli_w.dumps({"x": value})[4:].strip()
    line = f"{toml_key(key)} = {shown}"
    return f"{line:<24} # {comment}" if comment else line


def toml_key(name: str) -> str:
    """A key as TOML wants it."""
    return tomli_w.dumps({name: 0}).rpartition(" = ")[0]


def about(cls: type[Component] | None) -> Iterator[str]:
    """Comments above a component's table."""
    yield from (f"# {line}" for line in summary(cls))


def summary(cls: type[Component] | None) -> list[str]:
    """What a component does, and its source; nothing of one that is not known here."""
    return textwrap.wrap(f"{cls.summary()} ({cls.source})", WIDTH - 12) if cls else []


def meaning(cls: type[Component] | None, name: str) -> str:
    """What is valid for a hyperparameter, and its default."""
    hyper = cls.hypers.get(name) if cls else None
    return f"default {hyper.default}; {hyper.domain}" if hyper else ""

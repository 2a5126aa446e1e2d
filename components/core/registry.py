"""All components by id: this package's own, and those that other packages offer, which are loaded when asked for.

A package offers components through the entry point group `autoranger.components`; each entry names a module that
defines some, or a component class.
"""

from __future__ import annotations

import inspect
import warnings
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from autoranger.components.core.errors import ConfigError, first_line

GROUP = "autoranger.components"

Kind = TypeVar("Kind", bound=type)


class Registry(dict[str, Kind]):
    """Classes by id. One that is missing is looked for in what other packages offer, before there is a KeyError."""

    _discovering = False

    def __missing__(self, name: str) -> Kind:
        self.discover()
        if name in self:
            return self[name]
        raise KeyError(name)

    def find(self, name: str) -> Kind | None:
        """The class of this id; None where there is none."""
        try:
            return self[name]
        except KeyError:
            return None

    def discover(self) -> None:
        """Loads what other packages offer. Warns of one that fails to load; nothing of it is left."""
        if self._discovering:  # by a package that looks for its own components while it is loaded
            return
        self._discovering = True
        try:
            for entry in entry_points(group=GROUP):
                before = dict(self)
                try:
                    self._load(entry)
                except (Exception, SystemExit) as error:
                    self.clear()
                    self.update(before)
                    warnings.warn(
                        f"components of {package(entry)} fail to load from {entry.value} ({type(error).__name__}: "
                        f"{first_line(error)}); update or remove that package.",
                        stacklevel=2,
                    )
        finally:
            self._discovering = False

    def own(self) -> dict[str, Kind]:
        """This package's own."""
        return {name: cls for name, cls in self.items() if not origin(cls)}

    def _load(self, entry: EntryPoint) -> None:
        entry.load()
        if not any(top(cls.__module__) == top(entry.module) for cls in self.values()):
            raise ConfigError("it defines no component")


def origin(cls: type) -> str:
    """Where a class that is not of this package comes from: a package and its version, a file, or a module."""
    if top(cls.__module__) == top(__name__):
        return ""
    for entry in entry_points(group=GROUP):
        if top(entry.module) == top(cls.__module__):
            return package(entry)
    if not file_of(cls):
        return f"module {cls.__module__}"
    file = Path(file_of(cls)).resolve()
    return file.relative_to(Path.cwd()).as_posix() if file.is_relative_to(Path.cwd()) else file.name


def same_definition(one: type, other: type) -> bool:
    """Whether two classes come from the same lines, as where a file is run again or under two names."""
    places = [(file_of(cls) or cls.__module__, cls.__qualname__) for cls in (one, other)]
    return places[0] == places[1]


def file_of(cls: type) -> str:
    """The file of a class's module; empty where there is none, as in a notebook."""
    try:
        return inspect.getfile(cls)
    except (TypeError, OSError):
        return ""


def top(module: str) -> str:
    """The outermost package of a module."""
    return module.partition(".")[0]


def package(entry: EntryPoint) -> str:
    """The name and version of the package that has an entry point."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a package"

"""autoranger: composable optimizer components, and a search for the best subset of them for your task."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoranger.version import __version__

if TYPE_CHECKING:
    from autoranger import components, search
    from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage
    from autoranger.components.core.config import Config, load
    from autoranger.components.core.errors import ConfigError, DataError, SearchError
    from autoranger.components.optimizer.optimizer import ComposedOptimizer
    from autoranger.components.optimizer.ranger21 import Ranger21
    from autoranger.components.optimizer.schedule import OwnSchedule
    from autoranger.search import samplers
    from autoranger.search.tasks.task import Task
    from autoranger.search.tune.trial import Trial
    from autoranger.tuning import tune

__all__ = [
    "Component",
    "ComposedOptimizer",
    "Config",
    "ConfigError",
    "DataError",
    "Hyper",
    "OwnSchedule",
    "Ranger21",
    "Role",
    "SearchError",
    "Signals",
    "Stage",
    "Task",
    "Trial",
    "__version__",
    "components",
    "load",
    "samplers",
    "search",
    "tune",
]

HOMES = {
    "components.core.component": ("Component", "Hyper", "Role", "Signals", "Stage"),
    "components.core.config": ("Config", "load"),
    "components.core.errors": ("ConfigError", "DataError", "SearchError"),
    "components.optimizer.optimizer": ("ComposedOptimizer",),
    "components.optimizer.ranger21": ("Ranger21",),
    "components.optimizer.schedule": ("OwnSchedule",),
    "search.tasks.task": ("Task",),
    "search.tune.trial": ("Trial",),
    "tuning": ("tune",),
    "components": (),
    "search": (),
    "search.samplers": (),
}
"""Modules and the public names from each; a module without names is a public name itself."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: importing torch takes seconds."""
    for home, names in HOMES.items():
        if name in names or (not names and name == home.rpartition(".")[2]):
            module = import_module(f"{__name__}.{home}")
            found = globals()[name] = getattr(module, name) if names else module
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

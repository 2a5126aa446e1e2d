"""autoranger: composable optimizer components, and a search for the best subset of them for your task."""

from typing import TYPE_CHECKING, Any

from autoranger.components.core.component import Component, Hyper, Signals, Stage
from autoranger.components.core.config import Config, load
from autoranger.components.core.errors import ConfigError, DataError, SearchError
from autoranger.components.optimizer.optimizer import ComposedOptimizer, Ranger21
from autoranger.version import __version__

if TYPE_CHECKING:
    from autoranger.search.tasks.task import Task

__all__ = [
    "Component",
    "ComposedOptimizer",
    "Config",
    "ConfigError",
    "DataError",
    "Hyper",
    "Ranger21",
    "SearchError",
    "Signals",
    "Stage",
    "Task",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    """What belongs to the search is imported when it is asked for."""
    if name == "Task":
        from autoranger.search.tasks.task import Task

        return Task
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

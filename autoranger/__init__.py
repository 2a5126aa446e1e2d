"""autoranger: composable optimizer components, and a search for the best subset of them for your task."""

from autoranger.components.component import Component, Hyper, Signals, Stage
from autoranger.components.config import Config, load
from autoranger.components.errors import ConfigError, DataError, SearchError
from autoranger.components.optimizer import ComposedOptimizer, Ranger21
from autoranger.version import __version__

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
    "__version__",
    "load",
]

"""Tasks: one file each, with its data, model, loss and metric. A new file here is found by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from autoranger.components.errors import ConfigError, unknown
from autoranger.search.tasks.task import Task


def shipped() -> dict[str, type[Task]]:
    """The tasks of this folder, by name."""
    modules = [import_module(module.name) for module in iter_modules(__path__, prefix=f"{__name__}.")]
    return {task.name: task for module in modules for task in tasks_in(module).values() if task.name}


def find(spec: str) -> type[Task]:
    """The task class of a name, `file.py:Class` or `module:Class` (the class may be left out where it is the only one).

    A file or a module is imported, so its code runs. ConfigError where there is no such task.
    """
    known = shipped()
    if spec in known:
        return known[spec]
    place, _, attribute = spec.partition(":")
    if not attribute and not place.endswith(".py"):
        raise unknown("task", spec, known) from None
    module = load_file(Path(place)) if place.endswith(".py") else load_module(place)
    tasks = tasks_in(module)
    if attribute and attribute not in tasks:
        raise unknown(f"task class in {place}", attribute, tasks)
    if not attribute and len(tasks) != 1:
        raise ConfigError(f"{place} has {len(tasks)} task classes; name one, as in {place}:MyTask.")
    chosen = tasks[attribute or next(iter(tasks))]
    chosen.name = chosen.name or chosen.__name__
    return chosen


def tasks_in(module: ModuleType) -> dict[str, type[Task]]:
    """The task classes that a module defines, by class name."""
    classes = inspect.getmembers(module, inspect.isclass)
    return {name: c for name, c in classes if issubclass(c, Task) and c is not Task and c.__module__ == module.__name__}


def load_file(path: Path) -> ModuleType:
    """The module in a file of the user's; ConfigError where it is missing or does not run."""
    if not path.is_file():
        raise ConfigError(f"there is no task file {path}; name a file that exists, or a task of `autoranger tasks`.")
    name = f"autoranger_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; a task is a Python class.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"task file {path} fails to import ({type(error).__name__}: {error}).") from error
    return module


def load_module(name: str) -> ModuleType:
    """An importable module; ConfigError where it does not import."""
    try:
        return import_module(name)
    except Exception as error:
        raise ConfigError(f"task module {name} fails to import ({type(error).__name__}: {error}).") from error

"""Tasks: one file each, with data, model, loss and metric. A new file in this folder is found by its task's name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import warnings
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import torch

from autoranger.components.core.errors import ConfigError, DataError, first_line, unknown
from autoranger.search.tasks.task import Origin, Task
from autoranger.search.tasks.words import reason
from autoranger.search.vectorization import forked, reseed

GROUP = "autoranger.tasks"
"""Entry points under which installed packages offer tasks."""


def shipped() -> dict[str, type[Task]]:
    """The tasks of this folder, by name."""
    modules = [import_module(module.name) for module in iter_modules(__path__, prefix=f"{__name__}.")]
    return {task.name: task for module in modules for task in tasks_in(module).values() if task.name}


def installed() -> dict[str, EntryPoint]:
    """The tasks that other installed packages offer, by name; none of their code runs yet."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def available() -> dict[str, type[Task]]:
    """All named tasks of this folder and of installed packages; warns about those that fail to load."""
    tasks = {}
    for name, entry in installed().items():
        try:
            tasks[name] = load_entry(entry)
        except ConfigError as error:
            warnings.warn(str(error), stacklevel=2)
    return tasks | shipped()


def introduce(spec: str) -> None:
    """Imports what a task of this name, file or module is defined in, so that the components there are known."""
    place, _ = split(spec)
    if spec in shipped():
        return
    if (entry := installed().get(spec)) is not None:
        load_entry(entry)
    elif is_file(place):
        load_file(Path(place))
    else:
        load_module(place)


def find(spec: str) -> type[Task]:
    """The task class of a name, `file.py:Class` or `module:Class` (the class may be left out where it is the only one).

    Names of shipped tasks come before those of entry points. A file, a module or an entry point is imported, so its
    code runs. Raises ConfigError if there is no such task.
    """
    known, others = shipped(), installed()
    if spec in known:
        return known[spec]
    if spec in others:
        return load_entry(others[spec])
    place, attribute = split(spec)
    in_file = is_file(place)
    if not attribute and not in_file:
        raise unknown("task", spec, {*known, *others})
    module = load_file(Path(place)) if in_file else load_module(place)
    every = task_classes(module)
    tasks = tasks_in(module) or every
    if attribute and attribute not in every:
        raise unknown("task class", attribute, every, f"in {place}")
    if not attribute and len(tasks) != 1:
        raise ConfigError(f"{place} has {len(tasks)} task classes; name one, as in {place}:MyTask.")
    chosen = every[attribute or next(iter(tasks))]
    chosen.name = chosen.name or chosen.__name__
    return chosen


def split(spec: str) -> tuple[str, str]:
    """Splits `place:Class` into the file or module and the class, empty if not given. Folders may contain colons."""
    place, colon, attribute = spec.rpartition(":")
    return (place, attribute) if colon and (attribute.isidentifier() or not attribute) else (spec, "")


def is_file(place: str) -> bool:
    """Whether a place is a file, or would be one if it were there, and not a module."""
    return Path(place).suffix.lower() == ".py" or Path(place).is_file()


def create(spec: str, device: str, data_dir: Path | None) -> Task:
    """The task of a name, file or module (see `find`), for a device.

    Random numbers that its file and its constructor draw from the global generators are the same every time.
    """
    place = torch.device(device)
    with forked(place):
        reseed(place, 0)
        kind = find(spec)
        try:
            task = kind(device, data_dir)
        except (ConfigError, DataError):
            raise
        except Exception as error:
            raise ConfigError(
                f"task '{spec}' cannot be made with a device and a data_dir ({reason(error)})."
            ) from error
    task.origin = Origin(spec, device, data_dir)
    return task


def load_entry(entry: EntryPoint) -> type[Task]:
    """The task class behind an entry point; raises ConfigError if it does not load or is not a task."""
    package = entry.dist.name if entry.dist else "a package"
    try:
        chosen = entry.load()
    except Exception as error:
        raise ConfigError(
            f"task '{entry.name}' of {package} fails to load from {entry.value} ({type(error).__name__}: "
            f"{first_line(error)}); update or remove that package."
        ) from error
    if not (inspect.isclass(chosen) and issubclass(chosen, Task)):
        raise ConfigError(f"task '{entry.name}' of {package} is not a task class ({entry.value}).")
    chosen.name = chosen.name or entry.name
    return chosen


def tasks_in(module: ModuleType) -> dict[str, type[Task]]:
    """The task classes that a module defines, by class name."""
    return {name: task for name, task in task_classes(module).items() if task.__module__ == module.__name__}


def task_classes(module: ModuleType) -> dict[str, type[Task]]:
    """The task classes that a module defines or imports, by the name that they have there."""
    classes = inspect.getmembers(module, inspect.isclass)
    return {name: task for name, task in classes if issubclass(task, Task) and task is not Task}


def load_file(path: Path, kind: str = "task") -> ModuleType:
    """The module in a file of the user's; raises ConfigError if it is missing or does not run."""
    if not path.is_file():
        raise ConfigError(f"there is no {kind} file {path}; name a file that exists, or a task of `autoranger tasks`.")
    name = f"autoranger_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file; a task is a Python class.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)  # a task may import its neighbours, as a script may
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{kind} file {path} fails to import ({reason(error)}).") from error
    return module


def load_module(name: str) -> ModuleType:
    """An importable module; raises ConfigError if it does not import."""
    try:
        return import_module(name)
    except Exception as error:
        raise ConfigError(f"task module {name} fails to import ({type(error).__name__}: {error}).") from error

"""Finds the user's function in a file, a module, a script or a notebook, and tells whether its code has changed."""

from __future__ import annotations

import ast
import inspect
import pickle
import sys
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from autoranger.components.core.errors import ConfigError, unknown
from autoranger.search.tasks import load_file, load_module, split
from autoranger.search.tasks.words import reason
from autoranger.search.tune.training import Train, Training
from autoranger.search.tune.trial import Trial

DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Named:
    """A function by the name of its file or module, which each process imports once.

    Args:
        spec: `train.py:train` or `package.module:train`.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self._found: Train | None = None

    def __reduce__(self) -> tuple[type[Named], tuple[str]]:
        return Named, (self.spec,)

    def prepare(self) -> Train:
        """The function; raises ConfigError if it does not exist."""
        if self._found is None:
            self._found = self._import()
        return self._found

    def _import(self) -> Train:
        place, attribute = split(self.spec)
        attribute = attribute or "train"
        in_file = Path(place).suffix.lower() == ".py" or Path(place).is_file()
        if in_file and not Path(place).is_file():
            raise ConfigError(f"there is no file {place}; name a Python file and its function, as in train.py:train.")
        module = load_own(Path(place)) if in_file else load_module(place)
        found: Any = getattr(module, attribute, None)
        if found is None:
            functions = [name for name, _ in inspect.getmembers(module, inspect.isfunction)]
            raise unknown("function", attribute, functions, f"in {place}")
        return checked(found, self.spec)

    def __call__(self, trial: Trial) -> Any:
        """See `Train`."""
        return self.prepare()(trial)


def load_own(path: Path) -> ModuleType:
    """The module in a file, under its own name unless another module has that name.

    Processes that the function starts, such as the workers of a loader, can then import it, too.
    """
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = find_spec(path.stem) if path.stem.isidentifier() else None
    except ValueError:
        found = None
    if found is None or found.origin is None or Path(found.origin).resolve() != path.resolve():
        return load_file(path, "training")
    try:
        return import_module(path.stem)
    except Exception as error:
        raise ConfigError(f"training file {path} fails to import ({reason(error)}).") from error


def checked(train: Any, name: str) -> Train:
    """A training function; raises ConfigError if it is not a function of one argument."""
    if not callable(train):
        raise ConfigError(f"{name} is not a function; write def train(trial), which trains once and returns a metric.")
    try:
        inspect.signature(train).bind(None)
    except TypeError as error:
        raise ConfigError(f"{name} must take one argument, the trial ({error}).") from None
    except ValueError:  # a function without a signature
        pass
    return train  # type: ignore[no-any-return]


def sendable(work: Training) -> bytes | None:
    """A training pickled, for new processes; None if they cannot import its function."""
    try:
        pickled = pickle.dumps(work)
        main = sys.modules["__main__"]
        importable = getattr(main, "__spec__", None) is not None or Path(getattr(main, "__file__", "<")).is_file()
        return pickled if importable or b"__main__" not in pickled else None
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def name_of(train: Any) -> str:
    """The name of a function in messages."""
    if isinstance(train, Named):
        place, attribute = split(train.spec)
        return attribute if attribute not in ("", "train") else Path(place).stem
    return getattr(train, "__name__", type(train).__name__)


def checksum(train: Any) -> int | None:
    """A checksum of the code of a function and of what it uses of its own file; comments and layout do not count.

    None if the source is not available.
    """
    function = inspect.unwrap(train.prepare() if isinstance(train, Named) else getattr(train, "func", train))
    try:
        if (lines := inspect.getsourcefile(function)) and Path(lines).is_file():
            whole = ast.parse(Path(lines).read_text(encoding="utf-8"))
        else:
            whole = ast.parse(inspect.getsource(function))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    defined = {node.name: node for node in whole.body if isinstance(node, DEFINITIONS)}
    name, line = getattr(function, "__name__", ""), getattr(getattr(function, "__code__", None), "co_firstlineno", 0)
    inside = [node for node in ast.walk(whole) if isinstance(node, DEFINITIONS) and node.name == name]
    reached, waiting = dict[str, str](), sorted(inside, key=lambda node: abs(node.lineno - line))[:1]
    while waiting:
        node = waiting.pop()
        reached[node.name] = ast.dump(node)
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} & defined.keys()
        waiting += [defined[other] for other in used - reached.keys()]
    return zlib.crc32("\n".join(reached[other] for other in sorted(reached)).encode()) if reached else None

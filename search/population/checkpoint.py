"""Checkpoints of long trainings: an interrupted chunk goes on where it was, and ends as if it had not been interrupted.

A checkpoint is a file of tensors in the format of safetensors, so that reading one runs no code. It holds the weights,
the buffers that training changes, the optimizer's state, and which rows have failed. Generators are not in it: they are
seeded anew for each step of a training.

Its name says what is trained, so that whoever gets a chunk that another process had begun finds it. All processes that
train for a study write into one folder, each file whole or not at all. If two train the same chunk, since one of
them was thought to be gone, either file is right. Only the process that searches removes files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Self
from urllib.parse import quote

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from autoranger.components.core.config import Config
from autoranger.components.core.errors import DataError
from autoranger.components.core.files import write_whole
from autoranger.search.population.chunk import Chunk
from autoranger.search.vectorization import Tensors

EVERY = 120.0
"""Seconds of training between two checkpoints: what an interruption may cost."""

SHARE = 20
"""A checkpoint that took a second to write is followed by so many seconds of training, at least."""

DEPTH = 4
"""Objects within objects that are looked into for what a model remembers."""

CANDIDATES = "candidates"
"""The metadata of a checkpoint that say whose it is."""

UNREADABLE = (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError)
"""Errors of a file that is damaged, of another version, or gone."""


class Checkpoints:
    """A folder of checkpoints, those of one study.

    Args:
        folder: where they are; made when the first one is written.
        every: seconds between two checkpoints of a chunk; `EVERY` by default.
    """

    def __init__(self, folder: Path, every: float | None = None) -> None:
        self.folder, self.every = folder.absolute(), EVERY if every is None else every
        self.works = True
        self._lock = threading.Lock()

    @classmethod
    def beside(cls, journal: str | None, study: str) -> Self:
        """Those of a study, in a folder beside the journal file, or here if the storage is a database."""
        place = Path(journal or "autoranger").with_suffix(".checkpoints")
        return cls(place / quote(study, safe=""))

    def of(self, chunk: Chunk, steps: int, points: int) -> Checkpoint:
        """The checkpoint of a chunk: of the same candidates, seeds and length, called in the same way."""
        way = getattr(chunk.way, "__name__", "one by one")
        name = digest([[config.to_dict() for config in chunk.configs], list(chunk.seeds), steps, points, way])
        return Checkpoint(self, self.folder / f"{name}.safetensors")

    def drop(self, configs: Collection[Config]) -> None:
        """Removes the checkpoints of chunks of these candidates, whose results have been written."""
        done = {digest(config.to_dict()) for config in configs}
        for path in self.folder.glob("*.safetensors"):
            with suppress(*UNREADABLE), safe_open(path, framework="pt") as file:
                if done.issuperset(json.loads(file.metadata()[CANDIDATES])):
                    path.unlink(missing_ok=True)

    def refuse(self, why: str) -> None:
        """Writes no more of them, and says why, once."""
        with self._lock:
            if self.works:
                self.works = False
                warnings.warn(f"long trainings begin anew if they are interrupted: {why}", stacklevel=2)

    def clear(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()  # unless other studies have some


class Checkpoint:
    """The file of one chunk.

    Args:
        checkpoints: the folder's.
        path: of the file.
    """

    def __init__(self, checkpoints: Checkpoints, path: Path) -> None:
        self.checkpoints, self.path = checkpoints, path
        self._next = time.monotonic() + checkpoints.every

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return self.checkpoints.works and time.monotonic() >= self._next

    def write(self, chunk: Chunk, step: int, curve: Tensor) -> None:
        """Writes the state of a chunk after a step, whole or not at all. The training goes on if that fails."""
        begin = time.monotonic()
        if not steady(chunk.models.example, chunk.population.replica(chunk.seeds[0])):
            self.checkpoints.refuse("the model or its task keeps numbers besides its parameters and buffers.")
            return
        tensors = {name: x.detach().cpu().clone().contiguous() for name, x in chunk.state().items()} | {"curve": curve}
        candidates = [digest(config.to_dict()) for config in chunk.configs]
        facts = {
            "step": str(step),
            "failures": json.dumps(chunk.models.failures),
            CANDIDATES: json.dumps(candidates),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, save(tensors, facts))
        except (OSError, DataError) as error:
            self.checkpoints.refuse(str(error))
        now = time.monotonic()
        self._next = now + max(self.checkpoints.every, SHARE * (now - begin))

    def read(self, chunk: Chunk, curve: Tensor) -> int:
        """Brings a new chunk, and the scores on the way, to where they were. Returns the step; 0 without a checkpoint.

        A file that is damaged, or of another version, counts for none.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                facts = file.metadata()
                tensors: Tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            step, failures = int(facts["step"]), {int(k): str(v) for k, v in json.loads(facts["failures"]).items()}
        except UNREADABLE:
            return 0
        if not same_shapes(tensors, chunk.state() | {"curve": curve}):
            return 0
        curve.copy_(tensors.pop("curve"))
        chunk.restore(tensors, failures, step)
        return step


def digest(what: Any) -> str:
    """A name for plain data."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def same_shapes(found: Tensors, expected: Tensors) -> bool:
    """Whether tensors have the names, shapes and types of others."""
    shapes, others = ({name: (x.shape, x.dtype) for name, x in tensors.items()} for tensors in (found, expected))
    return shapes == others


OWN = {"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "pulse", "trained", "held"}
"""Attributes of modules that are in a checkpoint or the same in all of them."""


def steady(used: nn.Module, new: nn.Module) -> bool:
    """Whether training has changed nothing in a model but its tensors, as far as can be seen.

    Args:
        used: a replica that has been trained.
        new: one that has not been.
    """
    theirs = dict(new.named_modules())
    return all(
        same(kept(module), kept(theirs[name])) and same(holds(module), holds(theirs[name]))
        for name, module in used.named_modules()
    )


def kept(module: nn.Module) -> dict[str, Any]:
    """A module's attributes besides tensors, modules and hooks."""
    return {name: x for name, x in vars(module).items() if name not in OWN and not name.endswith("_hooks")}


def holds(module: nn.Module) -> Mapping[str, Any]:
    """The attributes of the task that a replica holds."""
    return vars(module.held[0]) if hasattr(module, "held") else {}  # type: ignore[index]


def same(one: Any, other: Any, depth: int = DEPTH) -> bool:
    """Whether two things are the same or alike. Things that nobody can look into, as generators, are not."""
    if one is other or isinstance(one, FunctionType | ModuleType | type):
        return True
    if type(one) is not type(other) or depth == 0:
        return False
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[k], other[k], depth - 1) for k in one)
    if isinstance(one, Sequence) and not isinstance(one, str | bytes):
        return len(one) == len(other) and all(same(a, b, depth - 1) for a, b in zip(one, other, strict=True))
    if "__eq__" in {name for kind in type(one).mro()[:-1] for name in vars(kind)}:
        return bool(one == other)
    return hasattr(one, "__dict__") and same(vars(one), vars(other), depth - 1)

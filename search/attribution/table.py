"""A tabular benchmark: every subset × learning rate × seed × length of one task, trained once and then looked up.

With it a hundred repetitions of a search cost seconds.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoranger.components.core.component import conflicts
from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError, DataError, first_line
from autoranger.search.arrays import Values
from autoranger.search.population import Population
from autoranger.search.space import Space
from autoranger.search.tasks.task import Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST = 12
"""Most components of a table, which has a row for every subset."""

PARTS = ("task", "components", "lrs", "seeds", "lengths", "curves")
"""The arrays in a table's file."""


@dataclass(frozen=True, eq=False)
class Table:
    """Validation curves of all subsets of some components. Subset number n has component i on where bit i of n is.

    Args:
        task: name of the task.
        components: C ids.
        lrs: L learning rates, increasing.
        seeds: S seeds; all candidates share them, so results of one seed are paired.
        lengths: T lengths of training in steps, increasing. Each is a training of its own, schedules scaled to it.
        curves: validation metric `[2^C, L, S, T, P]` at P evenly spaced points of each training, the end last; NaN
            from where a run has diverged. Higher is better.

    Raises:
        ConfigError: if these do not match.
    """

    task: str
    components: tuple[str, ...]
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    lengths: tuple[int, ...]
    curves: NDArray[np.float32]

    def __post_init__(self) -> None:
        expected = (2 ** len(self.components), len(self.lrs), len(self.seeds), len(self.lengths))
        if self.curves.ndim != 5 or self.curves.shape[:4] != expected or 0 in self.curves.shape:
            raise ConfigError(f"a table's curves are {self.curves.shape}, but must be {expected} and the points.")
        if self.curves.dtype != np.float32 or np.isinf(self.curves).any():
            raise ConfigError("a table's curves must be 32-bit floats, finite or NaN.")
        for name in ("lrs", "lengths"):
            axis = getattr(self, name)
            if not all(np.isfinite(axis)) or min(axis) <= 0 or list(axis) != sorted(set(axis)):
                raise ConfigError(f"a table's {name} must be positive and increase.")
        if len(set(self.components)) < len(self.components) or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("a table's components and seeds must differ from each other.")

    @classmethod
    def make(
        cls,
        task: Task,
        lrs: Iterable[float],
        seeds: Iterable[int],
        lengths: Iterable[int],
        *,
        space: Space | None = None,
        points: int = 10,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Table:
        """Trains a table.

        Args:
            task: what to train.
            lrs, seeds, lengths: the axes.
            space: its components and the base of all candidates; Ranger21's by default.
            points: of each curve.
            progress: called with the number of candidate-steps done since the last call.

        Raises:
            ConfigError: for a space with many components, or with some that exclude each other.
        """
        space = space or Space()
        if len(space.components) > MOST or conflicts(space.components):
            raise ConfigError(f"a table needs at most {MOST} components, and that all of them go together.")
        lrs, seeds, lengths = sorted(lrs), list(seeds), sorted(lengths)
        subsets = range(2 ** len(space.components))
        configs = [replace(space.arm(chosen(space.components, n)), lr=lr) for n in subsets for lr in lrs]
        population = Population(task)
        curves = [
            population.train(configs, seeds, length, splits=(), curve=points, progress=progress)["curve"]
            for length in lengths
        ]
        stacked = np.stack(curves, axis=2).reshape(len(subsets), len(lrs), len(seeds), len(lengths), points)
        shown = stacked.astype(np.float32)
        return cls(task.name, tuple(space.components), tuple(lrs), tuple(seeds), tuple(lengths), shown)

    def save(self, path: Path) -> None:
        """Writes the table as a compressed npz."""
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{name: np.asarray(getattr(self, name)) for name in PARTS})

    @classmethod
    def load(cls, path: Path) -> Table:
        """The table in a file. Nothing in it is ever unpickled.

        Raises:
            DataError: if the file cannot be read or is not a table.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                task, components, lrs, seeds, lengths, curves = (file[name] for name in PARTS)
            table = cls(
                task=str(task),
                components=tuple(map(str, components)),
                lrs=tuple(map(float, lrs)),
                seeds=tuple(map(int, seeds)),
                lengths=tuple(map(int, lengths)),
                curves=curves,
            )
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a table ({first_line(error)}); make it with studies/07_tables.") from None
        return table

    def at(self, lrs: Sequence[float] | None = None, length: int | None = None) -> Table:
        """The part of the table with these learning rates, or this length, only; raises ConfigError if it has none."""
        wanted = list(self.lrs if lrs is None else lrs)
        lengths = list(self.lengths if length is None else [length])
        if not set(wanted) <= set(self.lrs) or not set(lengths) <= set(self.lengths):
            raise ConfigError(f"the table has lrs {self.lrs} and lengths {self.lengths}, not {wanted} and {lengths}.")
        rows, columns = ([self.lrs.index(x) for x in wanted], [self.lengths.index(x) for x in lengths])
        return replace(self, lrs=tuple(wanted), lengths=tuple(lengths), curves=self.curves[:, rows][:, :, :, columns])

    @cached_property
    def final(self) -> Values:
        """Metric at the end of the longest training `[2^C, L, S]`, NaN if it has diverged."""
        return self.curves[:, :, :, -1, -1].astype(np.float64)

    @cached_property
    def means(self) -> Values:
        """Mean of `final` over seeds `[2^C, L]`; a run that has diverged counts as the worst of the whole table."""
        means: Values = np.nan_to_num(self.final, nan=np.nanmin(self.final)).mean(axis=-1)
        return means

    def subset(self, number: int) -> tuple[str, ...]:
        """The components that subset `number` has on."""
        return chosen(self.components, number)

    def number(self, names: Iterable[str]) -> int:
        """The number of the subset with just these components on."""
        return sum(1 << self.components.index(name) for name in set(names))

    def config(self, number: int, lr: float, base: Config | None = None) -> Config:
        """A candidate as a config, by the number of its subset and its learning rate."""
        return replace(base or Config(), lr=lr, components={name: {} for name in self.subset(number)})

    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The table as an Optuna search space: a switch for each component, and the learning rates as a list."""
        from optuna.distributions import CategoricalDistribution

        switches = {name: CategoricalDistribution((False, True)) for name in self.components}
        return {**switches, "lr": CategoricalDistribution(self.lrs)}

    def cell(self, params: Mapping[str, Any]) -> tuple[int, int]:
        """Numbers of the subset and the learning rate of Optuna's parameters; the nearest rate on a log scale."""
        distances = np.abs(np.log(np.asarray(self.lrs) / params["lr"]))
        return self.number(name for name in self.components if params[name]), int(distances.argmin())

    def regret(self, params: Mapping[str, Any]) -> float:
        """How much worse a candidate's mean is than the best of the table."""
        return float(self.means.max() - self.means[self.cell(params)])


def chosen(components: Sequence[str], number: int) -> tuple[str, ...]:
    """The components whose bit is set in `number`."""
    return tuple(name for i, name in enumerate(components) if number >> i & 1)

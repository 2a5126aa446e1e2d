"""One training: a call of the user's function, seeded, and its result or the reason why it failed."""

from __future__ import annotations

import functools
import math
import numbers
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from autoranger.search.population.memory import is_out_of_memory
from autoranger.search.serialization import to_json
from autoranger.search.tasks.words import reason
from autoranger.search.tune.trial import Diverged, Job, Trial
from autoranger.search.vectorization import reseed

Train = Callable[[Trial], Any]
"""The user's function: trains once, and returns a number, or a dict of numbers."""

TAIL = 4000
"""Characters of a traceback that are kept, its last ones."""


@dataclass(frozen=True)
class Result:
    """The result of a training.

    Args:
        metrics: the returned numbers, by name; a single number is called "".
        failure: why it failed, in a sentence; empty if it did not.
        diverged: whether it failed because a number was not finite, as with too high a rate.
        trace: the traceback of an error in it.
        seconds: duration.
        total_steps: that its optimizer was built for; None if it built none.
        steps: that its optimizers took.
        shortened: whether it read `trial.length`.
        apart: whether it read `trial.worker`.
        device: of the parameters of its optimizer; empty if it built none.
        reports: the first, lowest and last value that it reported; empty if it reported nothing.
        scale: what was trained, at full length, as in `core.proxy`; empty if `trial.build` was not given a model.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    diverged: bool = False
    trace: str = ""
    seconds: float = 0.0
    total_steps: int | None = None
    steps: int = 0
    shortened: bool = False
    apart: bool = False
    device: str = ""
    reports: Sequence[float] = ()
    scale: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> Any:
        """The result as plain data."""
        return to_json(asdict(self))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Result:
        """The result of plain data."""
        return cls(**data)


@dataclass(frozen=True)
class Training:
    """The `Work` of a user's function: an item is a `Job`, and what comes of it a `Result`.

    Args:
        train: the function.
        place: folder for those of trainings (`Trial.folder`); None for that of the system's temporary files.
    """

    train: Train
    place: str | None = None

    def prepare(self, number: int) -> None:
        """See `Work`."""
        prepare: Callable[[], Any] | None = getattr(self.train, "prepare", None)
        if prepare is not None:
            prepare()

    def __call__(self, item: Job, number: int, tell: Callable[[tuple[int, float] | None], None]) -> Result:
        """See `Work`."""
        with closing(Trial(item, number, tell, self.place)) as trial:
            return train_once(self.train, trial)


def train_once(train: Train, trial: Trial) -> Result:
    """Calls a training function with a trial. What the trial's `tell` raises passes through if it is no `Exception`."""
    began = time.monotonic()
    result = functools.partial(_result, trial, began)
    try:
        torch.manual_seed(trial.seed)  # on all devices, since it is not known on which it trains
        reseed(torch.device("cpu"), trial.seed)
        metrics = named_numbers(train(trial))
    except Diverged as end:
        return result(failure=str(end), diverged=True)
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            return result(failure="out of memory", trace=tail(error))
        return result(failure=reason(error), trace=tail(error))
    if not trial.device:
        return result(failure=NOT_BUILT)
    if not trial.steps:
        return result(failure=NEVER_STEPPED)
    wrong = [f"{name or 'the metric'} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    return result(failure=", ".join(wrong), diverged=True) if wrong else result(metrics=metrics)


NOT_BUILT = "it did not call trial.build(model, total_steps) for its optimizer"
NEVER_STEPPED = "it never called step() of the optimizer that trial.build returned"


def _result(trial: Trial, began: float, **found: Any) -> Result:
    return Result(
        seconds=time.monotonic() - began,
        total_steps=trial.total_steps,
        steps=trial.steps,
        shortened=trial.shortened,
        apart=trial.apart,
        device=trial.device,
        reports=trial.reports,
        scale=trial.scale,
        **found,
    )


def named_numbers(returned: Any) -> dict[str, float]:
    """What a function returned, as numbers by name; raises TypeError for anything else."""
    if isinstance(returned, Mapping) and returned:
        return {str(name): number(value, f"'{name}'") for name, value in returned.items()}
    return {"": number(returned, "")}


def number(value: Any, name: str) -> float:
    """A number as a float: Python's, NumPy's, or a tensor with one element."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return float(value.detach())
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        return float(value.reshape(-1)[0])
    what = "nothing" if value is None else f"a {type(value).__name__}"
    raise TypeError(f"train returned {what}{name and ' as '}{name}, but must return a number, or a dict of numbers")


def tail(error: BaseException) -> str:
    """The end of an error's traceback."""
    return "".join(traceback.format_exception(error))[-TAIL:]

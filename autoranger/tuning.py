"""`autoranger.tune`: the best optimizer for a training of one's own, from a script or a notebook."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoranger.components.core.errors import ConfigError
from autoranger.report.text import print_outcome
from autoranger.search.race.plan import parse_budget
from autoranger.search.space import Space
from autoranger.search.tune.runs import Direction
from autoranger.search.tune.source import checked, name_of
from autoranger.search.tune.tune import LR_RANGE, tune_in
from autoranger.search.tune.worker import BEGUN_AGAIN, in_worker
from autoranger.search.verdict.outcome import Outcome
from autoranger.session import Session
from autoranger.terminal import Aside, Output

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from autoranger.search.tune.training import Train


def tune(
    train: Train,
    *,
    budget: str | float | None = None,
    workers: int = 1,
    out: str | Path | None = None,
    metric: str | None = None,
    direction: Direction = "maximize",
    lr_range: tuple[float, float] = LR_RANGE,
    space: Space | Literal["subsets", "extended"] = "subsets",
    sampler: str | BaseSampler = "auto",
    seed: int = 0,
    timeout: str | float | None = None,
    log: str | Path | None = None,
    storage: str | None = None,
    study: str | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Finds the best subset of Ranger21's components for your own training, with its learning rate.

    Example::

        def train(trial):
            model, epochs = Net(), max(1, round(10 * trial.length))
            optimizer = trial.build(model, total_steps=epochs * len(loader))
            for epoch in range(epochs):
                ...                                      # as ever
                trial.report(validate(model), epoch)     # if you like: what is NaN ends there
            return validate(model)

        if __name__ == "__main__":
            autoranger.tune(train, budget="2h", workers=2, out="tuned.toml")

    A training that raises, hangs, runs out of memory, takes its process down or returns NaN has failed, with its
    reason, and the search goes on. Workers import the module or script that `train` is defined in, so the call of
    `tune` in a script stands under `if __name__ == "__main__":`. A function of a notebook is not importable: there,
    workers are forks of the notebook's process, with one thread each, and where that cannot be (Windows, macOS, a GPU
    in use) the notebook's process trains itself.

    Args:
        train: trains one model from the beginning, and returns the metric of the validation data: a number, or several
            by name, of which the one called "test" is of test data. It gets a `Trial`. torch, NumPy and Python have
            been seeded with `trial.seed`.
        budget: time limit, in seconds or as in "90s", "30m", "2h". What is in training then is ended. Without one,
            about 70 trainings are made.
        workers: processes that train at once. 0 trains in this one, which is easier to debug.
        out: where the config goes.
        metric: which of several numbers is to get better (the first one where None); the name of a single one.
        direction: "maximize" or "minimize".
        lr_range: lowest and highest learning rate to begin with; the search goes beyond where the best lies on an edge.
        space, sampler, seed: as for `autoranger search`.
        timeout: how long a training may take, as `budget`. Where None it may not be silent, without a step of the
            optimizer or a report, for much longer than others have been.
        log: a file for what trainings print, which is otherwise thrown away.
        storage, study, resume: as for `autoranger search`. Every training is a trial of the study with "-runs" after
            its name.
        quiet: shows neither progress nor result.

    Returns:
        what was found: `config`, its `evidence`, and the `finalists`.

    Raises:
        ConfigError: for what cannot be asked for, and where `train` does not work at all.
        SearchError: where there is nothing to recommend.
    """
    if in_worker():
        sys.exit(BEGUN_AGAIN)
    checked(train, "train")
    chosen = space if isinstance(space, Space) else named_space(space)
    console, aside = Output(quiet=quiet), Aside(stderr=True, quiet=quiet)
    session = Session(name_of(train), None if out is None else Path(out), storage, study, resume=resume)
    try:
        outcome = session.run(
            lambda opened, name, progress: tune_in(
                train,
                opened,
                name,
                metric=metric,
                direction=direction,
                lr_range=lr_range,
                workers=workers,
                timeout=seconds(timeout, "timeout"),
                log=None if log is None else Path(log),
                space=chosen,
                seed=seed,
                budget=seconds(budget, "budget"),
                sampler=sampler,
                resume=resume,
                progress=progress,
            ),
            aside,
        )
    except KeyboardInterrupt:
        if session.begun:
            aside.print(f"interrupted; tune(…, study={session.name!r}, resume=True) goes on.", markup=False)
        raise
    session.save(outcome, aside)
    print_outcome(console, outcome, session.out_path, session.report_command)
    return outcome


def named_space(name: str) -> Space:
    """The space of a name; ConfigError where there is none."""
    if name not in ("subsets", "extended"):
        raise ConfigError(f"space is '{name}', but must be 'subsets', 'extended', or a Space.")
    return Space() if name == "subsets" else Space.extended()


def seconds(duration: str | float | None, name: str) -> float | None:
    """A duration in seconds; ConfigError where it is none.

    Args:
        duration: in seconds, or as in "90s", "10m", "1.5h"; None for no limit.
        name: of the argument.
    """
    if duration is None or isinstance(duration, str):
        return None if duration is None else parse_budget(duration, name)
    if not duration > 0:
        raise ConfigError(f"{name} is {duration}, but must be positive.")
    return float(duration)

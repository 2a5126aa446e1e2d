"""`autoranger.tune`: the best optimizer for a training of one's own, from a script or a notebook."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoranger.components.core.errors import ConfigError
from autoranger.report.text import print_outcome
from autoranger.search import SPACE
from autoranger.search.direction import Direction
from autoranger.search.engine.child import BEGUN_AGAIN, in_worker
from autoranger.search.race.plan import parse_budget
from autoranger.search.space import Space
from autoranger.search.tune import LR_RANGE
from autoranger.search.tune.source import checked, name_of
from autoranger.search.tune.tune import tune_in
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
    workers: int | None = None,
    out: str | Path | None = None,
    metric: str | None = None,
    direction: Direction | None = None,
    lr_range: tuple[float, float] = LR_RANGE,
    space: Space | str | Sequence[str] = SPACE,
    sampler: str | BaseSampler = "auto",
    refine: bool = True,
    seed: int = 0,
    timeout: str | float | None = None,
    log: str | Path | None = None,
    storage: str | None = None,
    study: str | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Finds the best subset of components for your own training, with its learning rate.

    Example::

        def train(trial):
            model, epochs = Net(), max(1, round(10 * trial.length))
            optimizer = trial.build(model, total_steps=epochs * len(loader))
            for epoch in range(epochs):
                ...                                      # as ever
                trial.report(validate(model), epoch)     # optional; NaN ends the training
            return validate(model)

        if __name__ == "__main__":
            autoranger.tune(train, budget="2h", out="tuned.toml")

    A training that raises, hangs, runs out of memory, crashes its process or returns NaN fails; the reason is
    recorded and the search goes on. Workers import the module or script that `train` is defined in, so the call of
    `tune` in a script stands under `if __name__ == "__main__":`. A function of a notebook cannot be imported:
    its workers are forks of the notebook's process, with one thread each. If that process cannot be forked (Windows,
    macOS, a GPU in use), it runs the trainings itself.

    Args:
        train: gets a `Trial`, trains a new model, and returns its metric on the validation data: a number, or a dict
            of numbers, in which "test" is the metric on test data. torch, NumPy and Python are seeded with
            `trial.seed` before each call.
        budget: time limit, in seconds or as in "90s", "30m", "2h". Trainings that are running at the end are
            stopped. Default: no limit, and about 150 full trainings.
        workers: number of processes that train at once and share the cores; weights that `train` writes belong in
            `trial.folder`. 0 trains in this process, for a debugger. Default: one for each core, four at most; one
            alone where there is a GPU, CUDA's or Apple's, or the first training leaves weights in the working folder.
        out: file for the config. Default: none is written.
        metric: which number of the returned dict to improve. Default: the first. It names a single number, too.
        direction: "maximize" or "minimize". Default: "maximize". It must be given if the name of the metric, or the
            way in which reports of it change, suggests that lower is better.
        lr_range: lowest and highest learning rate to begin with; the search goes beyond where the best lies on an edge.
        space: what to choose from: "ranger21", "modern", "extended", a list of components' ids, or a `Space`. Default:
            "modern", Ranger21's eight and what is most asked about since.
        refine: whether the weight decay, betas and other numbers of the leaders are refined, if there is time for some
            30 trainings more.
        sampler, seed: as for `autoranger search`.
        timeout: time limit of one training, as `budget`. Default: none, but a training is stopped if it makes no step
            and no report for five times as long as any before it, and at least 30 seconds.
        log: file for what trainings print. Default: it is discarded.
        storage, study, resume: as for `autoranger search`. Every training is a trial of the study with "-runs" after
            its name.
        quiet: shows neither progress nor result.

    Returns:
        The outcome: its `config`, the `evidence` for it, and the `finalists`.

    Raises:
        ConfigError: if an argument is invalid, `train` fails at once, or training makes the metric worse.
        SearchError: if there is nothing to recommend.
    """
    if in_worker():
        os._exit(BEGUN_AGAIN)  # sys.exit would be caught, and its status lost, on the way out of an import
    checked(train, "train")
    chosen = Space.of(space)
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
                refine=refine,
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


def seconds(duration: str | float | None, name: str) -> float | None:
    """Returns a duration in seconds; raises ConfigError if it is invalid.

    Args:
        duration: in seconds, or as in "90s", "10m", "1.5h"; None for no limit.
        name: name of the argument.
    """
    if duration is None or isinstance(duration, str):
        return None if duration is None else parse_budget(duration, name)
    if not duration > 0:
        raise ConfigError(f"{name} is {duration}, but must be positive.")
    return float(duration)

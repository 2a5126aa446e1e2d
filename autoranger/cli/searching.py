"""Commands that search: `search`, `tune`, `worker`, and `new`, which writes what they take."""

from __future__ import annotations

import enum
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from autoranger.cli.console import err, out, print_json
from autoranger.cli.options import (
    Add,
    Address,
    Budget,
    DataDir,
    Device,
    EngineName,
    EngineOption,
    Json,
    OutPath,
    Quiet,
    Refine,
    Resume,
    SamplerOption,
    Seed,
    SpaceOption,
    Storage,
    Task,
    Verbose,
    Workers,
)
from autoranger.search import SPACE
from autoranger.search.commands import hidden, program
from autoranger.search.direction import Direction
from autoranger.search.tune import LR_RANGE
from autoranger.terminal import Aside, Interrupted

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from autoranger.search.engine.cluster import Cluster
    from autoranger.search.progress import Progress
    from autoranger.search.space import Space
    from autoranger.search.verdict.outcome import Outcome
    from autoranger.session import Session


INTERRUPTED = 130


class CostName(enum.StrEnum):
    """Costs that a search can look at."""

    memory = enum.auto()
    time = enum.auto()


class Kind(enum.StrEnum):
    """What can be begun with."""

    task = enum.auto()
    script = enum.auto()


def search(
    task: Task,
    out_path: OutPath = Path("tuned.toml"),
    budget: Budget = None,
    space: SpaceOption = SPACE,
    add: Add = None,
    sampler: SamplerOption = "auto",
    refine: Refine = True,
    objective: Annotated[
        str, typer.Option(help="What to improve: metric, loss, or steps:0.95 (steps to that metric).")
    ] = "metric",
    cost: Annotated[
        CostName | None, typer.Option(help="Also keep subsets with less state or faster steps: a Pareto front.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = None,
    devices: Annotated[
        str | None, typer.Option(help="A process for each, instead of --device: cuda:0,cuda:1 or all.")
    ] = None,
    engine: EngineOption = EngineName.local,
    address: Address = None,
    data_dir: DataDir = None,
    storage: Storage = None,
    study: Annotated[str | None, typer.Option(help="Name of the study. Default: task and time.")] = None,
    resume: Resume = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Race subsets of the components on a task, and export the winner.

    The first round trains subsets for a short time, each with several learning rates; later rounds train the best ones
    longer and on more seeds. A sampler chooses the subsets: --sampler auto (which is bayes), thompson, comband,
    combucb, or Optuna's tpe, gp, cmaes, random. Of a small space, as --space ranger21, every subset is trained if
    there is time. The finalists are compared on fresh seeds, and the subset that beats full Ranger21 significantly is
    exported, or full Ranger21 itself if none does. If --budget is too short for that, full Ranger21 is exported with
    the best of a few learning rates.

    **Examples**

        autoranger search --task digits
        autoranger search --task cifar --budget 10m --data-dir data --out cifar.toml
        autoranger search --task my_task.py:MyTask --add my_component --device cuda
    """
    began = time.monotonic()
    from autoranger.arguments import pick_device, pick_devices
    from autoranger.search.cost import Cost, memory, step_time
    from autoranger.search.crew.batch import Trained
    from autoranger.search.crew.crew import engine as crew_engine
    from autoranger.search.engine.board import Board
    from autoranger.search.population.memory import keep_freed_memory
    from autoranger.search.race.plan import parse_budget
    from autoranger.search.study import search as run
    from autoranger.search.tasks import create
    from autoranger.session import Session

    keep_freed_memory()
    seconds = None if budget is None else parse_budget(budget)
    places = pick_devices(devices)
    chosen = create(task, places[0] if places else pick_device(device), data_dir)
    session = Session(chosen.name, out_path, storage, study, resume=resume)
    aside = Aside(stderr=True, quiet=quiet, verbose=verbose)
    chosen_space = choices(space, add)
    price: Cost | None = None
    if cost is not None:
        price = memory() if cost is CostName.memory else step_time(chosen, chosen_space)

    def searched(opened: BaseStorage, name: str, progress: Progress) -> Outcome:
        board = Board(opened, name, Trained.from_data)
        cluster = chosen_cluster(engine, address, workers, gpu=chosen.device.type == "cuda")
        team = crew_engine(chosen, objective, workers=workers, devices=places, cluster=cluster, board=board)
        with closing(team) as crew:
            return run(
                chosen,
                opened,
                name,
                space=chosen_space,
                seed=seed,
                budget=seconds,
                sampler=sampler,
                refine=refine,
                objective=objective,
                cost=price,
                resume=resume,
                checkpoints=session.checkpoints,
                engine=crew,
                progress=progress,
                began=began,
            )

    with resumable(session, storage, study):
        outcome = session.run(searched, aside, ", ".join(places) or str(chosen.device))
    session.save(outcome, aside)
    show_outcome(session, outcome, out_path, add or (), as_json)


def tune(
    train: Annotated[str, typer.Argument(metavar="FILE:FUNCTION", help="Your training: train.py:train, or a module.")],
    out_path: OutPath = Path("tuned.toml"),
    budget: Budget = None,
    workers: Workers = None,
    engine: EngineOption = EngineName.local,
    address: Address = None,
    metric: Annotated[str | None, typer.Option(help="Which number to improve, if it returns a dict of them.")] = None,
    direction: Annotated[
        Direction | None,
        typer.Option(help="Whether a higher or a lower metric is better. Default: maximize; required for a loss."),
    ] = None,
    lr_range: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="Learning rates to begin with.")
    ] = LR_RANGE,
    timeout: Annotated[
        str | None, typer.Option(help="Time limit of one training, as 10m. Default: none, but hung ones are stopped.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="A file for what trainings print.")] = None,
    space: SpaceOption = SPACE,
    add: Add = None,
    sampler: SamplerOption = "auto",
    refine: Refine = True,
    seed: Seed = 0,
    storage: Storage = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; function and time if not given.")] = None,
    resume: Resume = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Find the best optimizer for a training of your own, and export it.

    The function gets a trial, calls `trial.build(model, total_steps)` for its optimizer, and returns the metric of its
    validation data. Without a --budget it is called for about 150 full trainings. `trial.length` is the share
    of a full training that is wanted. Trainings run in worker processes: one that crashes, hangs, runs out of memory
    or returns NaN has failed, and the search goes on. `autoranger new script FILE` writes one to begin with.

    **Examples**

        autoranger tune train.py:train --budget 2h
        autoranger tune train.py:train --metric loss --direction minimize --out mine.toml
    """
    began = time.monotonic()
    from autoranger.search.race.plan import parse_budget
    from autoranger.search.tune.source import Named, name_of
    from autoranger.search.tune.tune import tune_in
    from autoranger.session import Session

    seconds = None if budget is None else parse_budget(budget)
    limit = None if timeout is None else parse_budget(timeout, "timeout")
    function = Named(train)
    function.prepare()
    session = Session(name_of(function), out_path, storage, study, resume=resume)
    aside = Aside(stderr=True, quiet=quiet, verbose=verbose)
    with resumable(session, storage, study):
        outcome = session.run(
            lambda opened, name, progress: tune_in(
                function,
                opened,
                name,
                metric=metric,
                direction=direction,
                lr_range=lr_range,
                workers=workers,
                timeout=limit,
                log=log,
                cluster=chosen_cluster(engine, address, workers, gpu=False),
                space=choices(space, add),
                seed=seed,
                budget=seconds,
                sampler=sampler,
                refine=refine,
                resume=resume,
                progress=progress,
                began=began,
            ),
            aside,
        )
    session.save(outcome, aside)
    show_outcome(session, outcome, out_path, add or (), as_json)


def worker(
    study: Annotated[str, typer.Option(help="Name of the running search's study.")],
    storage: Storage = None,
    task: Annotated[
        str | None, typer.Option(metavar="SPEC", help="The task or function, if it has another path here than there.")
    ] = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Join a running search or tune as a worker, from any machine that can open its storage.

    The search hands out candidates to its workers, and trains itself, too. A worker may join and leave at any time;
    what it had is trained again elsewhere. It checks that its task and data are those of the search, and ends with it.

    **Example**

        autoranger worker --study digits-20261128 --storage postgresql+psycopg://user@host/studies
    """
    import optuna

    from autoranger.arguments import pick_device
    from autoranger.search.joining import join
    from autoranger.search.population.memory import keep_freed_memory
    from autoranger.search.storage.storage import JOURNAL, existing_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keep_freed_memory()
    aside = Aside(stderr=True, quiet=quiet, verbose=verbose)
    opened = existing_storage(storage or JOURNAL)
    with closing(join(opened, study, spec=task, device=pick_device(device), data_dir=data_dir)) as member:
        aside.print(f"joined study '{escape(study)}'; Ctrl-C leaves it", highlight=False)
        done = member.serve(lambda sentence: aside.print(sentence, highlight=False, markup=False))
    aside.print(f"the search is over; {done} items were trained here", highlight=False)


def new(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="task (data, model and metric) or script (a training).")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The Python file to write.")],
    as_json: Json = False,
) -> None:
    """Write a commented task or training script that runs as it is, to be changed.

    `autoranger search` takes the task, `autoranger tune` the script.

    **Examples**

        autoranger new task my_task.py
        autoranger new script train.py
    """
    from autoranger.templates import write

    lines = write(kind.value, file)
    if as_json:
        print_json({"file": str(file)})
        return
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def choices(space: str, add: list[str] | None) -> Space:
    """What a search chooses from."""
    from autoranger.search.space import Space

    return Space.of(space).adding(add or ())


def chosen_cluster(engine: EngineName, address: str | None, workers: int | None, *, gpu: bool) -> Cluster | None:
    """The Ray cluster to train on; None for workers of this machine.

    Args:
        engine, address, workers: the options.
        gpu: whether each worker needs a GPU.
    """
    from autoranger.components.core.errors import ConfigError
    from autoranger.search.engine.cluster import Cluster

    if engine is EngineName.local:
        if address is not None:
            raise ConfigError("--address is of a Ray cluster; add --engine ray.")
        return None
    return Cluster(address, workers, gpus=1.0 if gpu else 0.0)


@contextmanager
def resumable(session: Session, storage: str | None, study: str | None) -> Iterator[None]:
    """Within it, a search that is asked to end says how it goes on.

    Args:
        session: of the search.
        storage, study: the options, as they were given.
    """
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as end:
        if session.begun:
            err.print(f"interrupted. What was trained is in study '{escape(session.name)}'; continue with")
            again = [hidden(word) for word in sys.argv[1:] if word != "--resume"]
            named = ["--storage", session.place] * (storage is None) + ["--study", session.name] * (study is None)
            command = f"{program()} {shlex.join([*again, *named, '--resume'])}"
            err.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)
        else:
            err.print("interrupted before anything was trained.")
        raise typer.Exit(end.status if isinstance(end, Interrupted) else INTERRUPTED) from None


def show_outcome(session: Session, outcome: Outcome, out_path: Path, added: Iterable[str], as_json: bool) -> None:
    """Prints what a search found, also of the components that were added to its space."""
    from autoranger.report.text import outcome_dict, print_outcome

    if as_json:
        print_json(outcome_dict(outcome) | {"out": str(out_path), "study": session.name, "storage": session.place})
    else:
        print_outcome(out, outcome, out_path, session.report_command, added)

"""The command line: parse, call, print."""

from __future__ import annotations

import enum
import json
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.markup import escape
from rich.table import Column, Table

from autoranger.search.commands import hidden, program
from autoranger.search.direction import Direction
from autoranger.search.tune import LR_RANGE
from autoranger.terminal import Aside, Interrupted, Output, interruptible, streams
from autoranger.version import __version__

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from autoranger.search.engine.cluster import Cluster
    from autoranger.search.progress import Progress
    from autoranger.search.space import Space
    from autoranger.search.verdict.outcome import Outcome
    from autoranger.session import Session

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Begin with:  autoranger search --task digits",
)
out, err = Output(), Aside(stderr=True)


def explain_more(verbose: bool) -> bool:
    """Makes errors show where they come from."""
    err.verbose = verbose
    return verbose


Task = Annotated[str, typer.Option(help="A task of `autoranger tasks`, or my_task.py:MyTask.")]
Known = Annotated[
    str | None, typer.Option("--task", help="my_task.py, whose own components are meant, too. Its code runs.")
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1 …")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of data files; default: AUTORANGER_DATA, or a download.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", callback=explain_more, help="Also print each new best candidate, and tracebacks of errors."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress: only results, warnings and errors.")]
INTERRUPTED = 130


def completed(begin: str) -> list[str]:
    """The studies in the default storage whose names begin so, for the shell."""
    from autoranger.search.storage.existing import searches
    from autoranger.search.storage.storage import JOURNAL

    return [study.study_name for study in searches(JOURNAL) if study.study_name.startswith(begin)]


Latest = Annotated[
    str | None,
    typer.Argument(
        metavar="[STUDY]", help="Name of a search's study. Default: the latest one.", autocompletion=completed
    ),
]


class CostName(enum.StrEnum):
    """Costs that a search can look at."""

    memory = enum.auto()
    time = enum.auto()


class Form(enum.StrEnum):
    """What a config can be exported as."""

    toml = enum.auto()
    python = enum.auto()
    json = enum.auto()


class Kind(enum.StrEnum):
    """What can be begun with."""

    task = enum.auto()
    script = enum.auto()


class EngineName(enum.StrEnum):
    """Where workers are."""

    local = enum.auto()
    ray = enum.auto()


OutPath = Annotated[Path, typer.Option("--out", help="File for the tuned config.")]
Budget = Annotated[str | None, typer.Option(help="Time limit: 90s, 10m, 1h. Default: no limit.")]
SpaceOption = Annotated[
    str,
    typer.Option(
        "--space",
        help="What to choose from: ranger21 (its eight), modern (21), extended (all), or components as in A,B,C.",
        metavar="NAME",
    ),
]
Add = Annotated[
    list[str] | None, typer.Option(help="A component to choose from as well; can be given again.", metavar="NAME")
]
SamplerOption = Annotated[
    str,
    typer.Option(
        "--sampler", help="What chooses the first round's candidates: grid, bayes, thompson, tpe …", metavar="NAME"
    ),
]
Refine = Annotated[
    bool, typer.Option("--refine/--no-refine", help="Whether the leaders' weight decay, betas, … are refined, too.")
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed, plan and machine give the same file.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that train at once, sharing the cores. Default: 1; with Ray as many as fit."),
]
EngineOption = Annotated[EngineName, typer.Option("--engine", help="Where workers are: on this machine, or Ray's.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster, or auto. Default: a new one on this machine.")]
Storage = Annotated[str | None, typer.Option(help="Optuna storage: a journal file or a database URL.")]
Place = Annotated[
    str | None, typer.Option("--storage", help="Its Optuna storage, if not autoranger.journal: a file or a URL.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted --study.")]


@app.callback(invoke_without_command=True)
def autoranger(
    show_version: Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.")] = False,
) -> None:
    """Find the best subset of Ranger21's components for a task, and use it as a torch optimizer."""
    if show_version:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.command()
def search(
    task: Task,
    out_path: OutPath = Path("tuned.toml"),
    budget: Budget = None,
    space: SpaceOption = "ranger21",
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

    The first round trains every subset for a short time, with a grid of learning rates; later rounds train the best
    ones longer and on more seeds. If there are too many subsets, a sampler chooses: --sampler auto (which is bayes),
    thompson, comband, combucb, or Optuna's tpe, gp, cmaes, random. The finalists are compared on fresh seeds, and the
    subset that beats full Ranger21 significantly is exported, or full Ranger21 itself if none does. If --budget is too
    short for that, full Ranger21 is exported with the best of a few learning rates.

    **Examples**

        autoranger search --task digits
        autoranger search --task cifar --budget 10m --data-dir data --out cifar.toml
        autoranger search --task my_task.py:MyTask --add my_component --device cuda
    """
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
        team = crew_engine(chosen, objective, workers=workers or 1, devices=places, cluster=cluster, board=board)
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
            )

    with resumable(session, storage, study):
        outcome = session.run(searched, aside, ", ".join(places) or str(chosen.device))
    session.save(outcome, aside)
    show_outcome(session, outcome, out_path, as_json)


@app.command()
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
        typer.Option(help="Whether a higher or a lower metric is better. Default: maximize, but asks for a loss."),
    ] = None,
    lr_range: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="Learning rates to begin with.")
    ] = LR_RANGE,
    timeout: Annotated[
        str | None, typer.Option(help="Time limit of one training, as 10m. Default: none, but hung ones are stopped.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="A file for what trainings print.")] = None,
    space: SpaceOption = "ranger21",
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
    validation data. Without a --budget it is called for about 110 full trainings. `trial.length` is the share
    of a full training that is wanted. Trainings run in worker processes: one that crashes, hangs, runs out of memory
    or returns NaN has failed, and the search goes on. `autoranger new script FILE` writes one to begin with.

    **Examples**

        autoranger tune train.py:train --budget 2h --workers 2
        autoranger tune train.py:train --metric loss --direction minimize --out mine.toml
    """
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
                workers=workers or 1,
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
            ),
            aside,
        )
    session.save(outcome, aside)
    show_outcome(session, outcome, out_path, as_json)


@app.command()
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


def show_outcome(session: Session, outcome: Outcome, out_path: Path, as_json: bool) -> None:
    """Prints what a search found."""
    from autoranger.report.text import outcome_dict, print_outcome

    if as_json:
        print_json(outcome_dict(outcome) | {"out": str(out_path), "study": session.name, "storage": session.place})
    else:
        print_outcome(out, outcome, out_path, session.report_command)


@app.command()
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


@app.command()
def compare(
    configs: Annotated[
        list[str], typer.Argument(metavar="A B [C …]", help="Config files, presets, or studies of searches.")
    ],
    task: Task,
    seeds: Annotated[int, typer.Option(min=2, help="Number of common seeds.")] = 16,
    sweep: Annotated[bool, typer.Option(help="First find the best learning rate of each, at equal budget.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and machine give the same result.")] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    storage: Place = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train for the task's full length instead of the proxy's.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Compare configs on a task: paired on common seeds, with intervals.

    Each config first gets the best learning rate of its own sweep, so that none has the advantage of a good rate.

    **Examples**

        autoranger compare ranger21 adamw --task digits
        autoranger compare tuned.toml ranger21 adamw --task my_task.py:MyTask --seeds 32
        autoranger compare tuned.toml ranger21 --task fashion --full
    """
    import optuna

    from autoranger.arguments import pick_device
    from autoranger.display import Display
    from autoranger.search.population.memory import keep_freed_memory
    from autoranger.search.tasks import create
    from autoranger.search.verdict.comparison import compare_configs
    from autoranger.sources import read_source
    from autoranger.tables import comparison_dict, print_comparison

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keep_freed_memory()
    chosen = create(task, pick_device(device), data_dir)  # whose file may define components
    sides = {name: read_source(name, storage)[0] for name in configs}
    with Display(Aside(stderr=True, quiet=quiet, verbose=verbose)) as display:
        comparison = compare_configs(
            chosen.full() if full else chosen, sides, seeds=seeds, sweep=sweep, seed=seed, progress=display
        )
    if as_json:
        print_json(comparison_dict(comparison))
    else:
        print_comparison(out, comparison, chosen)


@app.command()
def report(
    study: Latest = None,
    storage: Place = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for a page, figures, the finalists' configs and attribution.json; or X.html: the page.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Report what a search found: the verdict, the finalists, and what each component contributes.

    The report is made from the study; nothing is trained. A search that runs or was interrupted is reported as far as
    it got.

    **Examples**

        autoranger report
        autoranger report digits-20260101-120000
        autoranger report mine --storage sqlite:///team.db --out report
    """
    import optuna

    from autoranger.report.page import check_folder, write_report
    from autoranger.report.reading import read_report
    from autoranger.report.text import print_report
    from autoranger.search.storage.database import shown
    from autoranger.search.storage.existing import find_study
    from autoranger.search.storage.storage import JOURNAL

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = storage or JOURNAL
    found = find_study(study, place)
    if folder is not None:
        check_folder(folder)
    with err.status("learning what each component contributes"):
        result = read_report(found, shown(place))
        written = [] if folder is None else write_report(result, folder)
    if as_json:
        print_json(result.to_dict() | ({"out": [str(path) for path in written]} if written else {}))
        return
    print_report(out, result)
    if written:
        out.print(f"\nWritten: {escape(', '.join(map(str, written)))}", highlight=False, soft_wrap=True)


@app.command()
def studies(storage: Place = None, as_json: Json = False) -> None:
    """List the searches in a storage, the latest first: when they began, how they stand, and what they found.

    **Examples**

        autoranger studies
        autoranger studies --storage postgresql+psycopg://me@host/studies
    """
    from autoranger.report.sentences import began
    from autoranger.report.standing import found_by, readable
    from autoranger.search.storage.existing import searches
    from autoranger.search.storage.storage import JOURNAL

    rows = [(study.study_name, readable(study), found_by(study)) for study in searches(storage or JOURNAL)]
    if as_json:
        print_json(
            {
                name: None if standing is None else standing.to_dict() | {"found": found}
                for name, standing, found in rows
            }
        )
        return
    if not rows:
        out.print("There is no search in this storage yet.")
        return
    cells = {
        name: ("?", "of another version", "") if standing is None else (began(standing), standing.state, found)
        for name, standing, found in rows
    }
    print_table("study", cells, "began", "state", "found")


@app.command()
def watch(study: Latest = None, storage: Place = None, as_json: Json = False) -> None:
    """Show a search while it runs: its rounds, its leaders and the time left.

    On a terminal this goes on until the search ends; Ctrl-C ends the watching, not the search. With --json, or where
    there is no terminal, the present moment is shown once.

    **Examples**

        autoranger watch
        autoranger watch mine --storage sqlite:///team.db
    """
    from autoranger.report.sentences import next_command
    from autoranger.report.standing import read_standing
    from autoranger.search.storage.database import shown
    from autoranger.search.storage.existing import find_study
    from autoranger.search.storage.storage import JOURNAL
    from autoranger.watch import follow

    found = find_study(study, storage or JOURNAL)
    if as_json:
        print_json(read_standing(found).to_dict())
        return
    with suppress(KeyboardInterrupt):
        follow(lambda: read_standing(found), out, lambda standing: next_command(standing, shown(storage or JOURNAL)))


@app.command()
def tasks(as_json: Json = False) -> None:
    """List the tasks that come with autoranger or with other installed packages."""
    from autoranger.search.tasks import available

    rows = {name: {"summary": task.summary, "source": task.source} for name, task in available().items()}
    if as_json:
        print_json(rows)
        return
    print_table("task", {name: (row["summary"], row["source"]) for name, row in rows.items()}, "what", "data")
    out.print("\nYour own: --task my_task.py:MyTask (see the README).")


@app.command()
def components(
    task: Known = None,
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print rules and sources as a page.")] = False,
    as_stub: Annotated[bool, typer.Option("--stub", help="Print them as arguments of Ranger21, for editors.")] = False,
) -> None:
    """List the components, in the order in which they act within a step."""
    from autoranger.components.core.component import registry
    from autoranger.components.core.reference import described, markdown
    from autoranger.components.optimizer.signature import stub
    from autoranger.tables import print_component

    if as_markdown or as_stub:
        own = registry.own().values()
        print_text(markdown(own) if as_markdown else stub(own))
        return
    registry.discover()
    introduce(task)
    if as_json:
        print_json({name: described(cls) for name, cls in registry.items()})
        return
    for name, cls in registry.items():
        print_component(out, name, {h.name: h.default for h in cls.hypers.values()})


@app.command()
def presets(as_json: Json = False) -> None:
    """List the presets, named optimizers that can be used wherever a config file can."""
    from autoranger.components.core.config import Config
    from autoranger.components.presets import PRESETS

    if as_json:
        about = {name: {"summary": preset.summary, "source": preset.source} for name, preset in PRESETS.items()}
        print_json({name: about[name] | {"config": Config.preset(name).to_dict()} for name in PRESETS})
        return
    print_table("preset", {name: (preset.summary, preset.source) for name, preset in PRESETS.items()}, "what", "source")
    out.print(f"\nIn full: {escape(program())} show PRESET", highlight=False, soft_wrap=True)


@app.command()
def show(
    source: Annotated[str, typer.Argument(metavar="CONFIG", help="A config file, a preset, or the study of a search.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="FILE:MODEL",
            help="my_model.py:make, a model or what makes one: what it gets. Code runs.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of that model's training, for --for.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Batch size of that training, for --for.")] = None,
    task: Known = None,
    storage: Place = None,
    as_json: Json = False,
) -> None:
    """Explain a config: its components and values, and what the search found about it.

    With `--for`, also what it is for a model: the kinds of its parameters, the rate and weight decay of each, and the
    scale laws that they come from.

    **Examples**

        autoranger show ranger21
        autoranger show tuned.toml --for my_model.py:make --steps 30000 --batch-size 256
    """
    from autoranger.sources import read_source
    from autoranger.tables import print_config

    introduce(task)
    config, evidence = read_source(source, storage)
    found = None
    if model is not None:
        from autoranger.fitting import fit, model_of, print_fit

        found = fit(config, model_of(model), steps, batch_size)
    elif steps or batch_size:
        from autoranger.components.core.errors import ConfigError

        raise ConfigError("--steps and --batch-size say what the training of a model is: name it by --for.")
    if as_json:
        about = {"evidence": evidence} if evidence else {}
        print_json(config.to_dict() | about | ({"for": asdict(found)} if found else {}))
        return
    print_config(out, source, config, evidence)
    if found:
        print_fit(out, config, found)


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="CONFIG", help="A config file, a preset, or the study of a search.")],
    form: Annotated[
        Form, typer.Option("--format", help="toml, with a comment for each line; python; or json.")
    ] = Form.toml,
    file: Annotated[Path | None, typer.Option("--out", help="File to write. Default: standard output.")] = None,
    task: Known = None,
    storage: Place = None,
) -> None:
    """Print a config as commented TOML, as Python code, or as JSON.

    **Examples**

        autoranger export tuned.toml --format python
        autoranger export digits-20260101-120000 --out tuned.toml
    """
    from autoranger.arguments import check_out, keep_previous
    from autoranger.components.core.files import write_whole
    from autoranger.export import FORMATS
    from autoranger.sources import read_source

    introduce(task)
    text = FORMATS[form](read_source(source, storage)[0].to_dict())
    if file is None:
        print_text(text)
        return
    if form is Form.toml:
        check_out(file)
        keep_previous(file)
    write_whole(file, text)


@app.command()
def transfer(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A config file, a preset, or the study of a search.")],
    task: Task,
    scale: Annotated[float, typer.Option(min=0.0, help="Width of the real model, times the proxy's.")] = 1.0,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the real training. Default: the task's full.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Of the real training. Default: the task's.")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds of each training.")] = 3,
    out_path: Annotated[Path | None, typer.Option("--out", help="Write the config with that rate here.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and machine give the same result.")] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    storage: Place = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Predict the best rate of a real training from small ones, with an interval.

    Trains the config at three scales from the proxy's on, at rates around those that the scale laws say, and says how
    far the best ones are from them. A task's `model(scale)` makes the wider models.

    **Examples**

        autoranger transfer tuned.toml --task shakespeare --scale 8 --steps 3000 --batch-size 64
        autoranger transfer tuned.toml --task my_task.py:MyTask --steps 30000 --out real.toml
    """
    from autoranger.arguments import check_out, pick_device
    from autoranger.display import Display
    from autoranger.fitting import print_transfer
    from autoranger.search.population.memory import keep_freed_memory
    from autoranger.search.tasks import create
    from autoranger.search.transfer import transfer as run
    from autoranger.sources import read_source

    keep_freed_memory()
    if out_path is not None:
        check_out(out_path)
    chosen = create(task, pick_device(device), data_dir)  # whose file may define components
    tuned, _ = read_source(config, storage)
    with Display(Aside(stderr=True, quiet=quiet, verbose=verbose)) as display:
        found = run(
            chosen, tuned, scale=scale, steps=steps, batch_size=batch_size, seeds=seeds, seed=seed, progress=display
        )
    if out_path is not None:
        replace(tuned, lr=found.lr).save(out_path)
    if as_json:
        print_json(asdict(found))
    else:
        print_transfer(out, tuned, found, chosen.metric_name)


@app.command()
def bench(
    model: Annotated[str, typer.Option(help="Shapes of the parameters: mlp, gpt, resnet50 or vit.")] = "gpt",
    peers: Annotated[bool, typer.Option("--peers", help="Also time Ranger21 of other packages.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Timed steps of each optimizer.")] = 30,
    figure: Annotated[Path | None, typer.Option(help="Draw the result to this file (.png, .svg or .pdf).")] = None,
    task: Known = None,
    device: Device = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Time steps on this machine: full Ranger21, each component alone, AdamW.

    The optimizers step over the same parameters in turns. Results are medians, and median ratios to torch's fused
    AdamW in the same round.

    **Examples**

        autoranger bench
        autoranger bench --model resnet50 --peers --figure resnet50.png
    """
    from autoranger.arguments import pick_device
    from autoranger.bench import bench as run
    from autoranger.components.core.component import registry
    from autoranger.display import counting
    from autoranger.tables import print_bench

    if figure is not None:
        from autoranger.figures import check_figure

        check_figure(figure)
    registry.discover()
    introduce(task)
    with counting(Aside(stderr=True, quiet=quiet), "timing") as progress:
        result = run(model, device=pick_device(device), rounds=rounds, peers=peers, progress=progress)
    if figure is not None:
        from autoranger.figures import draw_bench

        draw_bench(result, figure)
    if as_json:
        print_json(result.to_dict())
    else:
        print_bench(out, result)


def choices(space: str, add: list[str] | None) -> Space:
    """What a search chooses from."""
    from autoranger.search.space import Space

    return Space.of(space).adding(add or ())


def introduce(task: str | None) -> None:
    """Makes the components known that a task's file or module defines."""
    if task is not None:
        from autoranger.search.tasks import introduce

        introduce(task)


def print_json(value: object) -> None:
    """Prints a JSON document on stdout; numbers that are not finite become null."""
    from autoranger.search.serialization import to_json

    unicode = "utf" in (sys.stdout.encoding or "").lower()
    print_text(json.dumps(to_json(value), indent=2, ensure_ascii=not unicode) + "\n")


def print_text(text: str) -> None:
    """Prints text on stdout unchanged; see `Output` for a reader that has gone."""
    with suppress(BrokenPipeError):
        sys.stdout.write(text)


def print_table(first: str, rows: Mapping[str, tuple[str, ...]], *columns: str) -> None:
    """Prints a table with one row for each key."""
    folding = (Column(column, overflow="fold") for column in columns)
    table = Table(Column(first, no_wrap=True), *folding, box=None, pad_edge=False)
    for name, row in rows.items():
        table.add_row(f"[bold]{escape(name)}[/]", *map(escape, row))
    out.print(table)


def say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning in one line."""
    err.print(f"[yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command line: status 0 on success, 2 on wrong usage, 1 on failure, 130 on Ctrl-C (128 + the signal)."""
    warnings.filterwarnings("ignore", module="optuna")
    warnings.showwarning = say_warning
    with streams(), interruptible():
        try:
            app()
        except Exception as error:
            from autoranger.components.core.errors import ConfigError, DataError, SearchError, reason

            if err.verbose:
                err.print("".join(traceback.format_exception(error)), highlight=False, markup=False, soft_wrap=True)
            if isinstance(error, ConfigError):
                fail(str(error), 2)
            if isinstance(error, DataError | SearchError):
                fail(str(error), 1)
            if isinstance(error, OSError):
                where = f" ({error.filename})" if error.filename else ""
                fail(f"the system refuses: {reason(error)}{where}.", 1)
            raise


def fail(message: str, status: int) -> NoReturn:
    """Prints what is wrong, and exits."""
    err.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(status)


if __name__ == "__main__":  # as `python -m autoranger` does, by the longer name
    main()

"""The command line: parse, call, print."""

from __future__ import annotations

import enum
import json
import secrets
import shlex
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from rich.table import Column, Table

from autoranger.search.commands import program
from autoranger.search.plain import plain
from autoranger.terminal import Aside, Interrupted, Output, interruptible, patience, streams
from autoranger.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="Begin with:  autoranger search --task digits",
)
out, err = Output(), Aside(stderr=True)

Task = Annotated[str, typer.Option(help="A task of `autoranger tasks`, or my_task.py:MyTask.")]
Known = Annotated[
    str | None, typer.Option("--task", help="my_task.py, whose own components are meant, too. Its code runs.")
]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, cuda:1 …")]
DataDir = Annotated[Path | None, typer.Option(help="Data files; else AUTORANGER_DATA or a download.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead, for machines.")]
INTERRUPTED = 130


class CostName(enum.StrEnum):
    """What an optimizer costs."""

    memory = enum.auto()
    time = enum.auto()


class SpaceName(enum.StrEnum):
    """What a search chooses from."""

    subsets = enum.auto()
    extended = enum.auto()


@app.callback(invoke_without_command=True)
def autoranger(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Find the best subset of Ranger21's components for a task, and use it as a torch optimizer."""
    if show_version:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.command()
def search(
    task: Task,
    out_path: Annotated[Path, typer.Option("--out", help="Where the tuned config goes.")] = Path("tuned.toml"),
    budget: Annotated[str | None, typer.Option(help="Time limit: 90s, 10m, 1h. Else the standard plan.")] = None,
    space: Annotated[
        SpaceName, typer.Option(help="Subsets of Ranger21, or of all components there are.")
    ] = SpaceName.subsets,
    add: Annotated[
        list[str] | None, typer.Option(help="A component to choose from as well; can be given again.", metavar="NAME")
    ] = None,
    sampler: Annotated[
        str, typer.Option(help="Who chooses what the first round trains: grid, bayes, thompson, tpe …", metavar="NAME")
    ] = "auto",
    objective: Annotated[
        str, typer.Option(help="What to improve: metric, loss, or steps:0.95 for the steps to that metric.")
    ] = "metric",
    cost: Annotated[
        CostName | None, typer.Option(help="Keep what is cheaper in state or step time, too: a Pareto front.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, plan and machine: same file.")] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    storage: Annotated[str | None, typer.Option(help="Optuna storage: a journal file or a database URL.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; task and time if not given.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the --study that was interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Race subsets of the components on a task, and export the winner.

    Short proxy trainings of every subset, each with a grid of learning rates, then longer ones with more seeds for
    those that are left. Where there are too many subsets for the time, a sampler chooses: --sampler auto (that is
    bayes), thompson, comband, combucb, or Optuna's tpe, gp, cmaes, random. The verdict is on fresh seeds: the exported
    config is the subset that beats full Ranger21 significantly, or full Ranger21 itself where none does. A --budget
    that is too short for that gives full Ranger21 with the best of a few learning rates, and says so.

    **Examples**

        autoranger search --task digits
        autoranger search --task cifar --budget 10m --data-dir data --out cifar.toml
        autoranger search --task my_task.py:MyTask --add my_component --device cuda
    """
    import optuna

    from autoranger.arguments import check_out, keep_previous, pick_device
    from autoranger.components.core.errors import ConfigError, DataError
    from autoranger.display import Display
    from autoranger.report import outcome_dict, print_outcome
    from autoranger.search.cost import Cost, memory, step_time
    from autoranger.search.population.memory import keep_freed_memory
    from autoranger.search.race.plan import parse_budget
    from autoranger.search.space import Space
    from autoranger.search.storage.storage import JOURNAL, open_storage
    from autoranger.search.study import search as run
    from autoranger.search.tasks import create

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keep_freed_memory()
    seconds = None if budget is None else parse_budget(budget)
    chosen = create(task, pick_device(device), data_dir)
    check_out(out_path)
    if resume and study is None:
        raise ConfigError("--resume needs the --study to continue; its name was printed when the search began.")
    # Searches that begin in the same second have names of their own, and so have those around a clock that is set back.
    name = study or f"{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    place, chosen_space = storage or JOURNAL, Space.extended() if space is SpaceName.extended else Space()
    chosen_space = chosen_space.adding(add or ())
    price: Cost | None = None
    if cost is not None:
        price = memory() if cost is CostName.memory else step_time(chosen, chosen_space)
    opened = open_storage(storage)
    try:
        title = f"study '{name}' in {place}, on {chosen.device}"
        with patience() as kept, Display(err, title, kept) as display:
            outcome = run(
                chosen,
                opened,
                name,
                space=chosen_space,
                seed=seed,
                budget=seconds,
                sampler=sampler,
                objective=objective,
                cost=price,
                resume=resume,
                progress=display,
            )
    except (KeyboardInterrupt, Interrupted) as end:
        if name in optuna.get_all_study_names(opened):
            err.print(f"interrupted. What was trained is in study '{escape(name)}'; continue with")
            again = [word for word in sys.argv[1:] if word != "--resume"]
            named = ["--storage", place] * (storage is None) + ["--study", name] * (study is None)
            command = f"{program()} {shlex.join([*again, *named, '--resume'])}"
            err.print(f"  {command}", highlight=False, markup=False, soft_wrap=True)
        else:
            err.print("interrupted before anything was trained.")
        raise typer.Exit(end.status if isinstance(end, Interrupted) else INTERRUPTED) from None
    named = ["--storage", storage] if storage else []
    reported = f"{program()} {shlex.join(['report', name, *named])}"
    try:
        if previous := keep_previous(out_path):
            err.print(f"the config that was in {out_path} is now in {previous}", highlight=False, markup=False)
        outcome.config.save(out_path, outcome.evidence)
    except DataError as error:
        raise DataError(f"{error} What was found is in the study: {reported} --out FOLDER writes it.") from None
    if as_json:
        print_json(outcome_dict(outcome) | {"out": str(out_path), "study": name, "storage": place})
    else:
        print_outcome(out, outcome, out_path, reported)


@app.command()
def compare(
    configs: Annotated[list[str], typer.Argument(metavar="A B [C …]", help="Config files or names of presets.")],
    task: Task,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds that all of them run on.")] = 16,
    sweep: Annotated[bool, typer.Option(help="Find the best learning rate for each first, at equal budget.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and machine: same result.")] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    full: Annotated[bool, typer.Option("--full", help="At the task's full length instead of the proxy's.")] = False,
    as_json: Json = False,
) -> None:
    """Compare configs on a task: paired on common seeds, with intervals.

    Each gets the best learning rate of its own sweep first: a comparison at one side's favourite rate is none.

    **Examples**

        autoranger compare ranger21 adamw --task digits
        autoranger compare tuned.toml ranger21 adamw --task my_task.py:MyTask --seeds 32
        autoranger compare tuned.toml ranger21 --task fashion --full
    """
    import optuna

    from autoranger.arguments import pick_device
    from autoranger.components.core.config import load
    from autoranger.display import Display
    from autoranger.report import comparison_dict, print_comparison
    from autoranger.search.population.memory import keep_freed_memory
    from autoranger.search.tasks import create
    from autoranger.search.verdict.comparison import compare_configs

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keep_freed_memory()
    chosen = create(task, pick_device(device), data_dir)  # whose file may define components
    sides = {name: load(name) for name in configs}
    with Display(err) as display:
        comparison = compare_configs(
            chosen.full() if full else chosen, sides, seeds=seeds, sweep=sweep, seed=seed, progress=display
        )
    if as_json:
        print_json(comparison_dict(comparison))
    else:
        print_comparison(out, comparison, chosen)


@app.command()
def report(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study that a search has made.")],
    storage: Annotated[str | None, typer.Option(help="Where it is: a journal file or a database URL.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Write a page, its figures, the finalists' configs and attribution.json into this folder."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a search found out: the verdict, the finalists, and what each component contributes.

    Read from the study alone; nothing is trained. A search that was interrupted is shown as far as it got.

    **Examples**

        autoranger report digits-20260101-120000
        autoranger report mine --storage sqlite:///team.db --out report
    """
    import optuna

    from autoranger.findings import findings
    from autoranger.page import check_folder, write_report
    from autoranger.report import print_findings
    from autoranger.search.storage.existing import find_study
    from autoranger.search.storage.storage import JOURNAL

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = storage or JOURNAL
    found = find_study(study, place)
    if folder is not None:
        check_folder(folder)
    with err.status("learning what each component contributes"):
        result = findings(found, place)
        written = [] if folder is None else write_report(result, folder)
    if as_json:
        print_json(result.to_dict() | ({"out": [str(path) for path in written]} if written else {}))
        return
    print_findings(out, result)
    if written:
        out.print(f"\nWritten: {escape(', '.join(map(str, written)))}", highlight=False, soft_wrap=True)


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
    from autoranger.report import print_component

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
    """List the named optimizers, each of which can stand wherever a config file can."""
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
    source: Annotated[str, typer.Argument(metavar="CONFIG", help="A config file, or the name of a preset.")],
    task: Known = None,
    as_json: Json = False,
) -> None:
    """Explain a config: what is on, with which values, and what the search found out about it."""
    from autoranger.components.core.config import load, read
    from autoranger.report import print_config

    introduce(task)
    config, evidence = read(source) if Path(source).exists() else (load(source), {})
    if as_json:
        print_json(config.to_dict() | ({"evidence": evidence} if evidence else {}))
    else:
        print_config(out, source, config, evidence)


@app.command()
def bench(
    model: Annotated[str, typer.Option(help="Shapes of the parameters: mlp, gpt, resnet50 or vit.")] = "gpt",
    peers: Annotated[bool, typer.Option("--peers", help="Also Ranger21 as other packages have it.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each optimizer, in turns.")] = 30,
    figure: Annotated[Path | None, typer.Option(help="Draw the result into this file (.png, .svg or .pdf).")] = None,
    task: Known = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time the optimizers' steps on this machine: full Ranger21, each component alone, AdamW.

    All step over the same parameters in turns. The figures are medians, and ratios to torch's fused AdamW in the same
    round.

    **Examples**

        autoranger bench
        autoranger bench --model resnet50 --peers --figure resnet50.png
    """
    from autoranger.arguments import pick_device
    from autoranger.bench import bench as run
    from autoranger.components.core.component import registry
    from autoranger.display import counting
    from autoranger.report import print_bench

    if figure is not None:
        from autoranger.figures import check_figure

        check_figure(figure)
    registry.discover()
    introduce(task)
    with counting(err, "timing") as progress:
        result = run(model, device=pick_device(device), rounds=rounds, peers=peers, progress=progress)
    if figure is not None:
        from autoranger.figures import draw_bench

        draw_bench(result, figure)
    if as_json:
        print_json(result.to_dict())
    else:
        print_bench(out, result)


def introduce(task: str | None) -> None:
    """Makes the components known that a task's file or module defines."""
    if task is not None:
        from autoranger.search.tasks import introduce

        introduce(task)


def print_json(value: object) -> None:
    """One JSON document on stdout; what is not finite becomes null."""
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    print_text(json.dumps(plain(value), indent=2, ensure_ascii=not unicode) + "\n")


def print_text(text: str) -> None:
    """A text as it is, on stdout; see `Output` for a reader that has gone."""
    with suppress(BrokenPipeError):
        sys.stdout.write(text)


def print_table(first: str, rows: Mapping[str, tuple[str, ...]], *columns: str) -> None:
    """A table with one row for each key."""
    folding = (Column(column, overflow="fold") for column in columns)
    table = Table(Column(first, no_wrap=True), *folding, box=None, pad_edge=False)
    for name, row in rows.items():
        table.add_row(f"[bold]{escape(name)}[/]", *map(escape, row))
    out.print(table)


def say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line."""
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

            if isinstance(error, ConfigError):
                fail(str(error), 2)
            if isinstance(error, DataError | SearchError):
                fail(str(error), 1)
            if isinstance(error, OSError):
                where = f" ({error.filename})" if error.filename else ""
                fail(f"the system refuses: {reason(error)}{where}.", 1)
            raise


def fail(message: str, status: int) -> NoReturn:
    """Says what is wrong, and ends."""
    err.print(f"[red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(status)


if __name__ == "__main__":  # as `python -m autoranger` does, by the longer name
    main()

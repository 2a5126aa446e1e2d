"""Commands that explain what there is: `tasks`, `components`, `presets`, and configs by `show` and `export`."""

from __future__ import annotations

import enum
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from autoranger.cli.console import out, print_json, print_table, print_text
from autoranger.cli.options import Json, Known, Place, introduce
from autoranger.search.commands import program


class Form(enum.StrEnum):
    """What a config can be exported as."""

    toml = enum.auto()
    python = enum.auto()
    json = enum.auto()


def tasks(as_json: Json = False) -> None:
    """List the tasks that come with autoranger or with other installed packages."""
    from autoranger.search.tasks import available

    rows = {name: {"summary": task.summary, "source": task.source} for name, task in available().items()}
    if as_json:
        print_json(rows)
        return
    print_table("task", {name: (row["summary"], row["source"]) for name, row in rows.items()}, "what", "data")
    out.print("\nYour own: --task my_task.py:MyTask (see the README).")


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


def show(
    source: Annotated[str, typer.Argument(metavar="CONFIG", help="A config file, a preset, or the study of a search.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="FILE:MODEL",
            help="A model, or a function that makes one: show what each of its parameters gets. Runs the file.",
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

    The config of an earlier search, whose file is gone, is in its study.

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

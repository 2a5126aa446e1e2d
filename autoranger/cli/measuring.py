"""Commands that train or time configs: `compare`, `transfer` and `bench`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from autoranger.cli.console import out, print_json
from autoranger.cli.options import DataDir, Device, Json, Known, Place, Quiet, Task, Verbose, introduce
from autoranger.terminal import Aside


def compare(
    configs: Annotated[
        list[str], typer.Argument(metavar="A B [C …]", help="Config files, presets, or studies of searches.")
    ],
    task: Task,
    seeds: Annotated[int, typer.Option(min=2, help="Number of common seeds.")] = 16,
    sweep: Annotated[
        bool | None,
        typer.Option(help="First find the best learning rate of each; without, each has its own. Default: see below."),
    ] = None,
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

    Each config first gets the best learning rate of its own sweep, so that none has the advantage of a good rate. With
    --full it gets the rate that short trainings predict, as transfer does; --sweep finds it at full length. Where the
    full model is another one than the proxy, the scale laws carry the predicted rate over.

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
    from autoranger.search.transfer import predicted_at_full_length
    from autoranger.search.verdict.comparison import compare_configs, require_different
    from autoranger.sources import read_source
    from autoranger.tables import comparison_dict, print_comparison

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    keep_freed_memory()
    chosen = create(task, pick_device(device), data_dir)  # whose file may define components
    sides = {name: read_source(name, storage)[0] for name in configs}
    with Display(Aside(stderr=True, quiet=quiet, verbose=verbose)) as display:
        if predicted := full and sweep is None:
            require_different(sides)
            sides = predicted_at_full_length(chosen, sides, seed=seed, progress=display)
        comparison = compare_configs(
            chosen.full() if full else chosen,
            sides,
            seeds=seeds,
            sweep=not full if sweep is None else sweep,
            seed=seed,
            progress=display,
        )
    if as_json:
        print_json(comparison_dict(comparison) | {"rates_predicted": predicted})
    else:
        if predicted:
            out.print("learning rates that shorter trainings predict (see autoranger transfer)", highlight=False)
        print_comparison(out, comparison, chosen)


def transfer(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A config file, a preset, or the study of a search.")],
    task: Task,
    scale: Annotated[float, typer.Option(min=0.0, help="Width of the real model, times the proxy's.")] = 1.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the real training. Default: the task's full length.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Batch size of the real training. Default: the task's.")
    ] = None,
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

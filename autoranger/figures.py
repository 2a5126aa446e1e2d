"""Figures by Matplotlib, which is imported when one is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoranger.components.core.errors import ConfigError, DataError
from autoranger.search.commands import installs

if TYPE_CHECKING:
    from autoranger.bench import Bench

FORMATS = (".png", ".svg", ".pdf")


def check_figure(path: Path) -> None:
    """Raises ConfigError if no figure can be drawn into this file; for a check before the work."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"the figure {path} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {path.absolute().parent} for the figure; make it first.")
    canvas(1, 1)


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """An empty figure of a size in inches, and its axes; raises ConfigError without Matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(f"figures need Matplotlib: {installs('matplotlib')}") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    """Writes a figure; raises DataError if that fails."""
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another place.") from None


def draw_bench(bench: Bench, path: Path) -> None:
    """Step times relative to the reference, fastest at the top."""
    timings = sorted(bench.timings, key=lambda t: -t.ratio)
    figure, axes = canvas(8, 1 + 0.22 * len(timings))
    colours = [
        "#c44e52" if t.name.startswith("ranger21") else "#8c8c8c" if "torch" in t.name else "#4c72b0" for t in timings
    ]
    axes.barh([t.name for t in timings], [t.ratio for t in timings], color=colours, height=0.7)
    for row, t in enumerate(timings):
        axes.text(t.ratio * 1.03, row, f"{t.ratio:.2f}", va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(right=max(t.ratio for t in timings) * 1.6)
    axes.set_xlabel("time of a step, as a multiple of torch's fused AdamW")
    axes.set_title(f"{bench.model}, {bench.parameters:,} parameters, {bench.machine['device']}", fontsize=10)
    axes.tick_params(labelsize=8)
    save(figure, path)

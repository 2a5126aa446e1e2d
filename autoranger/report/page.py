"""The report as a folder: a self-contained page, its figures, the attribution as data, and the finalists' configs."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from autoranger.components.core.errors import ConfigError, DataError
from autoranger.components.core.files import check_writable, write_whole
from autoranger.export import to_python, to_toml
from autoranger.figures import canvas
from autoranger.report import sentences
from autoranger.report.charts import embed, figures, render
from autoranger.report.reading import PROXY, Report
from autoranger.version import __version__

PAGE, DATA = "report.html", "attribution.json"


def check_folder(path: Path) -> None:
    """Checks that the report can be written to a folder, or as a page alone to a file that ends in .html.

    Raises:
        ConfigError: if the path of a folder is a file, or the other way round, or Matplotlib is missing.
        DataError: if the folder, or the one in which it would be made, cannot be written.
    """
    if path.exists() and path.is_dir() is alone(path):
        kind, other = ("folder", "file") if path.is_dir() else ("file", "folder, or a file that ends in .html")
        raise ConfigError(f"--out {path} is a {kind}; name a {other}.")
    canvas(1, 1)
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    check_writable(nearest)


def alone(path: Path) -> bool:
    """Whether a path is for the page alone."""
    return path.suffix.lower() in (".html", ".htm")


def write_report(report: Report, folder: Path) -> list[Path]:
    """Writes `report.html`, its figures, `attribution.json`, and each finalist's config, replacing earlier ones.

    If the path ends in .html, it is the page alone, which needs no other file.

    Everything is made before the first file is written; each file is written whole or not at all.

    Returns:
        The files.

    Raises:
        ConfigError: if Matplotlib is missing.
        DataError: if a file cannot be written.
    """
    if alone(folder):
        write_whole(folder, page(report))
        return [folder]
    drawings = figures(report)
    texts = {f"{name}.svg": render(draw, words=words) for name, (words, draw) in drawings.items()}
    proxy = {key: value for key, value in (report.config or {}).items() if key == PROXY}  # which all were trained with
    for place, finalist in enumerate(report.finalists, start=1):
        texts[f"finalist-{place}.toml"] = to_toml({**finalist.config, **proxy})
    texts[DATA] = json.dumps(report.attribution_dict(), indent=2, ensure_ascii=False) + "\n"
    texts[PAGE] = page(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; choose another --out.") from None
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def page(report: Report) -> str:
    """The page, which needs nothing else: its figures are SVG elements in it. Everything else is escaped."""
    drawn = {
        name: embed(render(draw, transparent=True), name, words) for name, (words, draw) in figures(report).items()
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(files("autoranger.report").joinpath("page.html").read_text(encoding="utf-8"))
    exported = report.exported
    shown = {key: value for key, value in (report.config or {}).items() if key != PROXY}  # which is long
    ran = "" if report.evidence is None else sentences.versions(report.evidence)
    return template.render(
        report=report,
        figures={name: Markup(svg) for name, svg in drawn.items()},
        heading=sentences.heading(report),
        verdict=sentences.verdict(exported, report.evidence, sentences.pending(report)),
        outlook=sentences.outlook(report.evidence),
        finalists=list(sentences.finalist_cells(report.finalists)),
        legend=sentences.legend(report.evidence),
        spent=sentences.spent(report),
        basis=sentences.basis(report),
        contributions=list(sentences.contribution_cells(report)),
        pairs=list(sentences.pair_cells(report)),
        reading=sentences.READING,
        elsewhere=sentences.elsewhere(),
        config=to_toml(shown) if shown else "",
        code=to_python(shown) if shown else "",
        sittings=report.standing.sittings,
        next_command=sentences.next_command(report.standing, report.storage) if sentences.goes_on(report) else "",
        made=f"Made by autoranger {__version__}." + (f" The search ran with {ran}." if ran else ""),
    )

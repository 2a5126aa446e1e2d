"""The report as a folder: a page that needs nothing else, its figures, and the attribution as data."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import tomli_w
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from autoranger import wording
from autoranger.charts import embed, figures, render
from autoranger.components.core.config import check_writable, write_whole
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.figures import canvas
from autoranger.findings import Findings
from autoranger.version import __version__

PAGE, DATA = "report.html", "attribution.json"


def check_folder(path: Path) -> None:
    """Makes sure, before the work, that the report can be written there.

    Raises:
        ConfigError: where that is a file, or Matplotlib is missing.
        DataError: where the folder, or the one to make it in, cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"--out {path} is a file; name a folder.")
    canvas(1, 1)
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    check_writable(nearest)


def write_report(findings: Findings, folder: Path) -> list[Path]:
    """Writes `report.html`, its figures, `attribution.json`, and each finalist's config; old ones are replaced.

    All is made before the first is written, and each is written whole or not at all.

    Returns:
        the files.

    Raises:
        ConfigError: where Matplotlib is missing.
        DataError: where a file cannot be written.
    """
    drawings = figures(findings)
    texts = {f"{name}.svg": render(draw) for name, (_, draw) in drawings.items()}
    for place, finalist in enumerate(findings.finalists, start=1):
        texts[f"finalist-{place}.toml"] = tomli_w.dumps(finalist.config)
    texts[DATA] = json.dumps(findings.attribution_dict(), indent=2, ensure_ascii=False) + "\n"
    texts[PAGE] = page(
        findings, {name: embed(render(draw, transparent=True), name, words) for name, (words, draw) in drawings.items()}
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; choose another --out.") from None
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def page(findings: Findings, drawn: dict[str, str]) -> str:
    """The page; its figures by name as SVG elements. Everything else in it is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(files("autoranger").joinpath("page.html").read_text(encoding="utf-8"))
    exported = findings.exported
    ran = "" if findings.evidence is None else wording.versions(findings.evidence)
    return template.render(
        findings=findings,
        figures={name: Markup(svg) for name, svg in drawn.items()},
        about=wording.about(findings),
        verdict=wording.verdict(exported, findings.evidence, findings.failure),
        finalists=list(wording.finalist_cells(findings.finalists)),
        note=wording.note(findings.evidence),
        spent=wording.spent(findings),
        source=wording.source(findings),
        contributions=list(wording.contribution_cells(findings)),
        pairs=list(wording.pair_cells(findings)),
        reading=wording.READING,
        config="" if exported is None else tomli_w.dumps(exported.config),
        made=f"Made by autoranger {__version__}." + (f" The search ran with {ran}." if ran else ""),
    )

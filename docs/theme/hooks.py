"""What MkDocs calls while it builds the site: pages that are made from the repository, and its picture."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

PAGES = {
    "architecture.md": "ARCHITECTURE.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "components/README.md": "components/README.md",
    "tasks.md": "search/tasks/README.md",
}
"""Pages of the site that are files elsewhere in the repository."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are not files of this folder."""
    for name, source in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for path in sorted(ROOT.glob("studies/**/*")):
        if path.name == "README.md" or path.suffix in (".png", ".svg"):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "cli.md", content=command_line()))
    files.append(File.generated(config, "api.md", content=public_names()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Names of the repository's files become links to their pages, and its picture a part of the page.

    A picture that is part of the page has its colours, light or dark.
    """
    here = page.file
    studies = {Path(uri).parent.name: uri for uri in files.src_uris if uri.startswith("studies/0") or "/1" in uri}
    targets = {source: name for name, source in PAGES.items()}
    targets |= {f"docs/{uri}": uri for uri in files.src_uris if "/" not in uri}
    targets |= {f"studies/{name}": f"studies/{name}/README.md" for name in studies}

    def link(match: re.Match[str]) -> str:
        found = targets.get(match[1].removesuffix("/README.md") if match[1].startswith("studies/") else match[1])
        to = files.get_file_from_path(found) if found else None
        return match[0] if to is None else f"[`{match[1]}`]({relative(to, here)})"

    if here.src_uri.startswith("studies/"):
        markdown = re.sub(r"\]\((\d\d_\w+)\)", r"](\1/README.md)", markdown)
    else:
        markdown = re.sub(r"(?<!\[)`([\w./]+)`(?!\])", link, markdown)
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    return re.sub(r"!\[[^\]]*\]\((docs/)?architecture\.svg\)", lambda _: f"<figure>\n{picture}</figure>", markdown)


def relative(to: File, here: File) -> str:
    """The path of one page's source from another's, which MkDocs turns into a link."""
    return "../" * here.src_uri.count("/") + to.src_uri


def command_line() -> str:
    """The help of every command, as one page."""
    command = [sys.executable, "-m", "typer", "autoranger.cli", "utils", "docs", "--name", "autoranger"]
    found = subprocess.run([*command, "--title", "Command line"], capture_output=True, text=True, check=True, cwd=ROOT)
    return found.stdout


def public_names() -> str:
    """A page with every public name, classes before what is raised."""
    import autoranger

    names: list[str] = [name for name in autoranger.__all__ if not name.startswith("_")]
    parts: list[Any] = ["# Python\n\nEverything here is imported from `autoranger`.\n"]
    return "\n".join([*parts, *(f"::: autoranger.{name}\n" for name in names)])

"""The blocks of code in the documentation, and what runs them: README, guides, and what else people copy from."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from typer.main import get_command

from autoranger.cli import app

ROOT = Path(__file__).parents[1]

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code: its language, and its text."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, where its first line is a comment that says so."""
        named = re.match(r"# ([\w/]+\.(?:py|toml))\n", self.text)
        return named[1] if named else None


def blocks(page: Path | str, *languages: str) -> list[Block]:
    """The blocks of a page, or of a part of its text, in these languages; all of them if none is named."""
    text = page.read_text(encoding="utf-8") if isinstance(page, Path) else page
    found = [Block(*match) for match in BLOCK.findall(text)]
    return [block for block in found if not languages or block.language in languages]


def code(text: str) -> str:
    """All Python of a part of a page, one block after the other."""
    return "\n".join(block.text for block in blocks(text, "python"))


SHORTER = {
    r"\bsteps = \d+": "steps = 6",
    r"full_steps = \d+": "full_steps = 12",
    r"round\(20 \*": "round(2 *",
    r'budget="\w+"': "workers=0",
    r"search --task digits(?!.*--space)": "search --task digits --space ranger21",
    r"n_trials=100": "n_trials=12",
    r"steps:0\.\d+": "steps:0.2",
}
"""What makes the code of a page quicker, and leaves it what it is."""

ELSEWHERE = re.compile(
    r"--device|--engine|--for|--resume|--workers|--task (cifar|fashion|shakespeare)|postgresql|sqlite:"
    r"|^autoranger (tune|watch|worker)"
    r"|^(/tmp/fresh|cd|export|git|make|mypy|optuna-dashboard|pip|pytest|python -m (build|pip)|python3 -m venv|ray|rm"
    r"|ruff|source|srun|twine)\b"
)
"""What is only parsed: it needs data, devices or minutes that a test has not, or is another program."""


def quick(text: str) -> str:
    """The same, in less time."""
    for long, short in SHORTER.items():
        text = re.sub(long, short, text)
    return text


def commands(block: Block) -> Iterator[str]:
    """The commands of a block for a shell, without comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if command := line.partition("  #")[0].strip():
            yield command


def run(page: Path, given: dict[str, Any], command_line: Callable[..., tuple[int, str, str]]) -> None:
    """Runs the blocks of a page in order, in the folder at hand, as somebody would who copies all of them.

    Args:
        page: the file.
        given: names that the page takes for granted, such as a model and a loader.
        command_line: runs `autoranger` with its arguments: status, what it prints, errors.
    """
    for block in blocks(page):
        if block.file:
            compile(block.text, block.file, "exec")
            Path(block.file).write_text(quick(block.text), encoding="utf-8")
        elif block.language == "python":
            exec(compile(quick(block.text), page.name, "exec"), given)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "bash":
            for command in commands(block):
                run_command(command, command_line)


def run_command(command: str, command_line: Callable[..., tuple[int, str, str]]) -> None:
    """Runs one line, or only parses it where a test cannot run it."""
    if ELSEWHERE.search(command):
        parse(command)
        return
    program, *words = shlex.split(quick(command))
    if program == "python":
        runpy.run_path(words[0], run_name="__main__")
        return
    assert program == "autoranger", f"{command}: nothing in tests/pages.py says how to try this"
    status, _, errors = command_line(*words)
    assert status == 0, f"{command}\n{errors}"


def parse(command: str) -> None:
    """Whether there is such a target of make, or such a command of ours with such options; a wrong one raises."""
    program, *words = shlex.split(re.sub(r"^(\w+=\S+ )+", "", command))
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    if program != "autoranger":
        return
    group = get_command(app)
    with group.make_context("autoranger", words) as context:
        name, *rest = [*context._protected_args, *context.args]
        found = group.get_command(context, name)  # type: ignore[attr-defined]
        assert found is not None, name
        found.make_context(name, rest, parent=context)

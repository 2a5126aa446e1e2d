"""Commands in messages, written so that they work when the user types them."""

from __future__ import annotations

import shlex
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path


def program() -> str:
    """`autoranger`, or its path if the shell would not find this environment's."""
    started = Path(sys.argv[0])
    return from_here(started if started.stem == "autoranger" else Path(sysconfig.get_path("scripts"), "autoranger"))


def this_command() -> str:
    """What this process was started by: `autoranger …`, or a script of Python; URLs without their passwords."""
    file, *words = sys.argv
    begun = program() if Path(file).stem in ("autoranger", "__main__") else f"python {shlex.quote(file or '-')}"
    return " ".join([begun, *(shlex.quote(hidden(word)) for word in words)])


def resuming(command: str, study: str) -> str:
    """What continues a search in a study that was begun by a command."""
    begun, *words = shlex.split(command)
    if Path(begun).stem != "autoranger":
        return f"{command}, with study={study!r} and resume=True for autoranger.tune"
    named = any(word.partition("=")[0] == "--study" for word in words)
    more = [*([] if named else ["--study", study]), *([] if "--resume" in words else ["--resume"])]
    return f"{program()} {shlex.join([*words, *more])}"


def hidden(word: str) -> str:
    """A word of a command line without the password in it, if it is a database's URL."""
    from autoranger.search.storage.database import shown

    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{shown(value)}"


def installs(package: str) -> str:
    """The command that installs a package for the running Python."""
    python = from_here(Path(sys.executable))
    return f"{python} -m pip install {package}" if find_spec("pip") else f"uv pip install --python {python} {package}"


def from_here(file: Path) -> str:
    """A program's name if the shell finds it by that, else its path, relative if it is below the current folder."""
    found = shutil.which(file.name)
    if not file.is_file() or (found is not None and Path(found).absolute() == file.absolute()):
        return file.name
    below = file.absolute().is_relative_to(Path.cwd())
    return shlex.quote(str(file.absolute().relative_to(Path.cwd()) if below else file.absolute()))

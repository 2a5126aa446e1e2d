"""What a stranger gets: versions that go together, and a package that Python finds wherever it is started."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from autoranger import __version__
from autoranger.search import commands

ROOT = Path(__file__).parents[1]
PACKAGE = ("autoranger", "components", "search")

UNREACHABLE = ("Failed to fetch", "error sending request", "network was disabled", "Could not connect")


def resolve(*options: str) -> str:
    """What uv chooses for the tests' environment, by the package index alone; skips where there is none to ask."""
    uv = pytest.importorskip("uv", reason="uv is not installed; make test installs it")
    command = [uv.find_uv_bin(), "pip", "compile", "pyproject.toml", "--extra", "test", "--no-config", "--no-header"]
    quick = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1", "UV_NATIVE_TLS": "1", "UV_SYSTEM_CERTS": "1"}
    kept = {name: value for name, value in os.environ.items() if name != "UV_FIND_LINKS"}
    try:
        found = subprocess.run(
            [*command, "--quiet", *options], cwd=ROOT, env=kept | quick, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index is too slow")
    if found.returncode and any(words in found.stderr for words in UNREACHABLE):
        pytest.skip(f"the package index cannot be reached: {' '.join(found.stderr.split())}")
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_the_constraints_go_together(python: str) -> None:
    """Above all with what torch from the index pins, which a machine with a torch for the CPU does not show."""
    assert "torch==2.13.0" in resolve("--constraint", "constraints.txt", "--python-version", python)


def test_the_constraints_hold_for_every_system_and_python() -> None:
    resolve("--constraint", "constraints.txt", "--python-version", "3.11", "--universal")


def test_the_oldest_torch_can_be_had(tmp_path: Path) -> None:
    oldest = tmp_path / "oldest.txt"
    oldest.write_text("torch==2.6.*\n", encoding="utf-8")
    assert "torch==2.6.0" in resolve("--constraint", str(oldest), "--python-version", "3.11", "--universal")


def test_constraints_name_nothing_that_torch_pins() -> None:
    """They may keep what follows torch from being newer than it was tested, and nothing more."""
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert not pinned & {"torch", "torchvision", "triton", "sympy", "mpmath", "networkx", "filelock", "fsspec"}
    assert not [name for name in pinned if name.startswith(("nvidia", "cuda"))]


def clone(place: Path) -> Path:
    """The package's files as a clone has them, in a folder that is called like the package."""
    tree = place / "autoranger"
    tree.mkdir()
    for folder in (*PACKAGE, "src"):
        subprocess.run(["cp", "-R", "-P", str(ROOT / folder), str(tree)], check=True)
    return tree


def imported(folder: Path, path: str = "") -> list[Path]:
    """The files that the package's three floors come from, for a Python that is started in a folder."""
    code = """
import sys
sys.path += [folder for folder in sys.argv[1].split(":") if folder]
import autoranger, autoranger.components.core.config, autoranger.search.race.plan
for module in (autoranger, autoranger.components.core.config, autoranger.search.race.plan):
    print(module.__file__)
"""
    torch_at = find_spec("torch").origin  # type: ignore[union-attr]
    packages = str(Path(torch_at).parents[1])  # type: ignore[arg-type]
    command = [sys.executable, "-S", "-c", code, f"{packages}:{path}"]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return [Path(line).resolve() for line in found.stdout.splitlines()]


def floors(tree: Path) -> list[Path]:
    files = ("autoranger/__init__.py", "components/core/config.py", "search/race/plan.py")
    return [(tree / file).resolve() for file in files]


@pytest.fixture
def linked() -> None:
    if not (ROOT / "src" / "autoranger" / "search" / "__init__.py").exists():
        pytest.skip("this checkout has no symbolic links")


@pytest.mark.usefixtures("linked")
def test_a_clone_can_be_imported_inside_and_beside_itself(tmp_path: Path) -> None:
    """Beside it, the clone's folder is found first, and is no package; the path of an editable install has it then."""
    tree = clone(tmp_path)
    assert imported(tree) == floors(tree)
    assert imported(tmp_path, str(tree / "src")) == floors(tree)


@pytest.mark.usefixtures("linked")
def test_two_clones_are_not_mixed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = clone(tmp_path / "one"), clone(tmp_path / "two")
    assert imported(one, str(two / "src")) == floors(one)


def run_setup(tree: Path, *command: str) -> None:
    if find_spec("setuptools") is None:  # not imported here, where something else may have Python's own distutils
        pytest.skip("needs setuptools")
    found = subprocess.run([sys.executable, "setup.py", "-q", *command], cwd=tree, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("links", [True, False])
def test_a_wheel_has_every_file_once(links: bool, tmp_path: Path) -> None:
    """Also from a checkout that has files in place of symbolic links."""
    tree = clone(tmp_path)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (tree / file).write_bytes((ROOT / file).read_bytes())
    if not links:
        for link in (tree / "autoranger" / "components", tree / "autoranger" / "search", tree / "src" / "autoranger"):
            target = os.readlink(link) if link.is_symlink() else link.read_text()
            link.unlink()
            link.write_text(target)
    run_setup(tree, "build", "--build-lib", "built")
    built = {path.relative_to(tree / "built") for path in (tree / "built").rglob("*") if path.is_file()}
    ours = [path for folder in PACKAGE for path in (ROOT / folder).rglob("*") if path.is_file()]
    wanted = {
        Path("autoranger", *path.relative_to(ROOT / "autoranger").parts)
        if path.is_relative_to(ROOT / "autoranger")
        else Path("autoranger", path.relative_to(ROOT))
        for path in ours
        if path.suffix in (".py", ".pyi", ".h", ".html", ".toml", ".typed")
    }
    assert built == wanted


def test_an_sdist_has_what_a_wheel_is_made_of(tmp_path: Path) -> None:
    """Its links are folders, so that it needs no system that knows links."""
    tree = clone(tmp_path)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (tree / file).write_bytes((ROOT / file).read_bytes())
    run_setup(tree, "sdist", "--dist-dir", "dist")
    (archive,) = (tree / "dist").iterdir()
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "unpacked")  # one's own
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    for folder in (tree, unpacked):
        run_setup(folder, "build", "--build-lib", "built")
    wanted, found = ({path.relative_to(x) for path in x.rglob("*")} for x in (tree / "built", unpacked / "built"))
    assert found == wanted
    assert archive.name == f"autoranger-{__version__}.tar.gz"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of an environment beside which Python was started, which is not activated."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("autoranger", "python"):
        (programs / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr(sys, "argv", [".venv/bin/autoranger"])
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    return programs


def test_commands_are_printed_as_they_can_be_typed(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commands.program() == ".venv/bin/autoranger"
    assert commands.installs("matplotlib") == ".venv/bin/python -m pip install matplotlib"
    elsewhere = environment.parent / "else where"
    elsewhere.mkdir()
    (elsewhere / "autoranger").touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(elsewhere / "autoranger")])
    assert commands.program() == "'.venv/else where/autoranger'"
    monkeypatch.chdir(environment)
    assert commands.program() == f"'{elsewhere / 'autoranger'}'"


def test_an_activated_environment_needs_no_paths(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert commands.program() == "autoranger"
    assert commands.installs("matplotlib") == "python -m pip install matplotlib"


def test_without_pip_uv_installs(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Callable[[str], None] = lambda name: None  # noqa: E731
    monkeypatch.setattr(commands, "find_spec", nothing)
    assert commands.installs("matplotlib") == "uv pip install --python .venv/bin/python matplotlib"

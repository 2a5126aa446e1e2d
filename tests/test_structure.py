"""The shape of the code: floors, file sizes, and what `import autoranger` costs."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import torch

from autoranger import HOMES
from autoranger.components.core.component import registry

ROOT = Path(__file__).parent.parent
FLOORS = ("components", "search", "autoranger")

MAY_IMPORT = {
    "components": ("autoranger.components",),
    "search": ("autoranger.components", "autoranger.search"),
    "autoranger": ("autoranger",),
}

SOURCES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
LINES = 300

each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def floor_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


PUBLIC = {name: home for home, names in HOMES.items() for name in names or (home.rpartition(".")[2],)}


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere, and of what it takes from them.

    Public names count for where they are defined, so that a component may take those of its floor as users do.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the module's full name"
            assert node.module
            if node.module == "autoranger" and all(name.name in PUBLIC for name in node.names):
                yield from (f"autoranger.{PUBLIC[name.name]}" for name in node.names)
                continue
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@each_source
def test_imports_point_down_only(path: Path) -> None:
    for name in imports(path):
        if name.split(".")[0] == "autoranger":
            assert any(f"{name}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[floor_of(path)])


def privates(*objects: object) -> set[str]:
    """Names that some objects have for themselves, of attributes and methods."""
    names = {name for thing in objects for name in dir(thing)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


INHERITED = privates(torch.nn.Module(), torch.optim.SGD([torch.zeros(())]))
"""What classes of ours have from torch's, if they are derived from them."""


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


@each_source
def test_private_names_of_torch_are_in_one_file(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() == "components/core/private.py":
        pytest.skip("is that file")
    assert not [name for name in imports(path) if name.split(".")[0] == "torch" and is_private(name)]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            own = ast.unparse(node.value) in ("self", "cls")
            assert node.attr not in INHERITED | (set() if own else privates(torch.zeros(()))), f"line {node.lineno}"
            assert not ast.unparse(node).startswith("torch."), f"line {node.lineno}"
        if isinstance(node, ast.FunctionDef):
            assert node.name not in INHERITED, f"line {node.lineno}: overrides what torch keeps to itself"


MAKES_AN_OPTIMIZER = "autoranger.components.core.config", "autoranger.components.optimizer.optimizer"
"""The one import that is against the order: `Config.build` gives what is made of configs."""


def test_imports_make_no_circle_however_lazy() -> None:
    modules = {}
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts if parts[0] == "autoranger" else ("autoranger", *parts))
        modules[name.removesuffix(".__init__")] = path
    graph = {
        name: {found for found in imports(path) if found in modules and (name, found) != MAKES_AN_OPTIMIZER} - {name}
        for name, path in modules.items()
    }
    # A package counts for what is taken from it, not for being on the way to a module of its own.
    for found in graph.values():
        found -= {package for package in found if any(other.startswith(f"{package}.") for other in found)}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", [p for p in SOURCES if floor_of(p) == "components"], ids=lambda path: path.name)
def test_the_ground_floor_knows_torch_and_nothing_else(path: Path) -> None:
    known = {*sys.stdlib_module_names, "torch", "tomli_w", "autoranger"}
    known |= {"filelock"}  # which torch needs, too
    known |= {"triton"} if path.name == "runtime.py" else set()  # which none but generated kernels import
    assert {name.split(".")[0] for name in imports(path)} <= known


@each_source
def test_files_are_short(path: Path) -> None:
    if floor_of(path) == "autoranger":
        pytest.skip("only components and search are promised to be short")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


@each_source
def test_only_presets_and_components_name_components(path: Path) -> None:
    """What else knows a component by name would have to be edited for the next one."""
    if path.name in ("presets.py", "order.py") or path.stem in registry:
        pytest.skip("may name components")
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    constants = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not constants & registry.keys()
    assert not {f"autoranger.components.{name}" for name in registry} & set(imports(path))


@pytest.mark.parametrize("path", [p for p in SOURCES if floor_of(p) != "autoranger"], ids=lambda p: p.name)
def test_nothing_below_the_top_floor_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not any(isinstance(call, ast.Name) and call.id == "print" for call in calls)


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in SOURCES if path.name == "__init__.py"}
    names = {".".join(folder.parts) for folder in folders}
    assert set(project["packages"]) == {n if n.split(".")[0] == "autoranger" else f"autoranger.{n}" for n in names}
    assert not [path for path in SOURCES if path.parent.relative_to(ROOT) not in folders], "not in a package"


@pytest.mark.parametrize("first", ["Ranger21", "Task", "samplers"])
def test_every_public_name_is_imported_when_asked_for(first: str) -> None:
    """Whichever is the first one, and though none is before."""
    code = f"""
import sys, autoranger
assert "torch" not in sys.modules
autoranger.{first}
from autoranger import *
assert set(autoranger.__all__) <= set(globals()) and autoranger.search.samplers is samplers
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


def test_a_component_may_import_the_public_names(tmp_path: Path) -> None:
    """In a file of the components' own folder, wherever the import begins."""
    inner = [f for f in FLOORS if f != "autoranger"]
    shutil.copytree(ROOT / "autoranger", tmp_path / "autoranger", ignore=shutil.ignore_patterns("__pycache__", *inner))
    for floor in inner:
        shutil.copytree(ROOT / floor, tmp_path / "autoranger" / floor, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "autoranger" / "components" / "aardvark.py").write_text(
        "from autoranger import Component, Hyper, Signals, Stage, Task, samplers, search\n\n"
        "class Aardvark(Component):\n"
        '    """The first to be imported."""\n\n'
        "    stage, source, k = Stage.DIRECTION, 'here', Hyper(1.0, low=0.1, high=2.0)\n\n"
        "    def forward(self, x: Signals) -> Signals:\n        return x\n"
    )
    look = "from autoranger.components.core.component import registry; assert 'aardvark' in registry"
    for begin in ("autoranger.components", "autoranger.search.study"):
        subprocess.run([sys.executable, "-c", f"import {begin}; {look}"], check=True, cwd=tmp_path)


def test_import_costs_torch_and_nothing_more() -> None:
    heavy = ["optuna", "sklearn", "scipy", "matplotlib", "typer", "rich", "pooch", "plotly", "pandas"]
    code = f"import sys, autoranger; print(*[name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT.parent)
    assert found.stdout.split() == []


EXPECTED = {
    ".ci",
    ".gitignore",
    ".pre-commit-config.yaml",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "autoranger",
    "components",
    "constraints.txt",
    "docs",
    "mkdocs.yml",
    "pyproject.toml",
    "search",
    "setup.py",
    "src",
    "studies",
    "tests",
}


def test_the_top_level_of_the_repository_is_as_expected() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    present = {name.split("/")[0] for name in listed if (ROOT / name).exists()}
    assert present == EXPECTED

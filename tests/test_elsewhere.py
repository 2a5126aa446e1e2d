"""Components of installed packages and of a task's file are found like autoranger's own."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import autoranger
from autoranger import Config, ConfigError, Ranger21
from autoranger.components.core.component import registry
from autoranger.components.core.registry import GROUP
from autoranger.search.space import Space
from autoranger.search.tasks import find

COMPONENT = '''
from autoranger import Component, Hyper, Signals, Stage


class {name}(Component):
    """Multiply the direction by `scale`."""

    stage = Stage.DIRECTION
    source = "https://example.org"
    scale = Hyper(0.5, low=0.1, high=0.9)

    def forward(self, x: Signals) -> Signals:
        return x._replace(direction=x.direction * self.scale)
'''

TASK = """
import torch
from autoranger import Task


class Mine(Task):
    name, steps, batch_size, lr_range = "mine", 4, 8, (1e-2, 3e-2)

    def data(self):
        x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        y = (x[:, 0] > 0).long()
        return {"train": (x[:30], y[:30]), "valid": (x[30:45], y[30:45]), "test": (x[45:], y[45:])}

    def model(self):
        return torch.nn.Linear(3, 2)
"""


def project(folder: Path, name: str, module: str, entry: str) -> Path:
    """A package with one module and one entry point."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(module, encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{name}"\nversion = "1.2"\n[project.entry-points."{GROUP}"]\n{name} = "{entry}"\n'
        f'[tool.setuptools]\npy-modules = ["{name}"]\n',
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two packages are installed that work, one of which names a class, and two that do not."""
    if not (find_spec("pip") and find_spec("setuptools")):
        pytest.skip("needs pip and setuptools")
    place = tmp_path_factory.mktemp("packages")
    half = COMPONENT.format(name="HalfRegistered") + "import a_module_that_is_missing"
    projects = [
        project(place / "1", "halving", COMPONENT.format(name="HalvingDirection"), "halving"),
        project(place / "2", "softening", COMPONENT.format(name="Softening"), "softening:Softening"),
        project(place / "3", "broken", half, "broken"),
        project(place / "4", "taken", COMPONENT.format(name="Lookahead"), "taken"),
    ]
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(place / "installed")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, projects)], check=True)
    return place / "installed"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Each test leaves the registry, the path and the modules as they were, and works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    before, path, modules = dict(registry), list(sys.path), set(sys.modules)
    yield
    registry.clear()
    registry.update(before)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent in (tmp_path, *map(Path, path)):
            del sys.modules[name]
    for name in ("halving", "softening", "broken", "taken"):
        sys.modules.pop(name, None)


@pytest.fixture
def installed(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages are in this environment."""
    monkeypatch.syspath_prepend(str(packages))


quietly = pytest.mark.filterwarnings("ignore:components of")


def parameter() -> torch.nn.Parameter:
    p = torch.nn.Parameter(torch.ones(2, 3))
    p.grad = torch.ones(2, 3)
    return p


@quietly
@pytest.mark.usefixtures("installed")
def test_a_component_of_a_package_is_found_by_its_name(tmp_path: Path) -> None:
    assert not {"halving_direction", "softening"} & registry.keys(), "nothing is loaded before it is asked for"
    p = parameter()
    Config(lr=1.0, weight_decay=0, components={"halving_direction": {"scale": 0.25}}).build([p]).step()
    torch.testing.assert_close(p.detach(), torch.full((2, 3), 0.75))
    optimizer = Ranger21([parameter()], total_steps=3, softening=True)
    assert optimizer.config.components["softening"] == {"scale": 0.5}
    optimizer.step()
    with pytest.raises(ConfigError, match="did you mean 'softening'"):
        Ranger21([parameter()], total_steps=3, softning=True)
    with pytest.raises(ConfigError, match="did you mean 'maximize'"):
        Ranger21([parameter()], total_steps=3, maximise=True)


@quietly
@pytest.mark.usefixtures("installed")
def test_a_component_of_a_package_is_in_the_whole_space_and_where_it_is_named() -> None:
    assert set(Space().adding(["softening"]).components) - set(Space().components) == {"softening"}
    assert Space().adding(["softening", "lookahead"]).size == 512
    assert {"halving_direction", "softening"} <= set(Space.extended().components)
    with pytest.raises(ConfigError, match="unknown component 'softer'"):
        Space().adding(["softer"])


@pytest.mark.usefixtures("installed")
def test_packages_that_do_not_load_are_named_and_leave_nothing_behind() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry.discover()
    said = sorted(str(warning.message) for warning in caught)
    assert len(said) == 2
    assert said[0] == (
        "components of broken 1.2 fail to load from broken (ModuleNotFoundError: No module named "
        "'a_module_that_is_missing'); update or remove that package."
    )
    assert said[1].startswith("components of taken 1.2 fail to load from taken (ConfigError: a component 'lookahead'")
    assert "half_registered" not in registry
    assert registry["lookahead"].__module__ == "autoranger.components.lookahead"
    assert {"halving_direction", "softening"} <= registry.keys()
    assert not {"halving_direction", "softening"} & registry.own().keys()


@quietly
@pytest.mark.usefixtures("installed")
def test_a_saved_config_says_which_package_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Config(components={"softening": {}, "lookahead": {}})
    saved.save("x.toml", {"task": "digits"})
    assert '[origin]\nsoftening = "softening 1.2"' in Path("x.toml").read_text()
    pickled = pickle.dumps(saved)
    registry.pop("softening")
    sys.modules.pop("softening")
    assert pickle.loads(pickled) == copy.deepcopy(saved) == autoranger.load("x.toml") == saved
    registry.pop("softening")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^x.toml: component 'softening' is of 'softening 1.2', .*install that"):
        autoranger.load("x.toml")


def test_origins_that_are_nonsense_are_not_taken_at_their_word() -> None:
    for origin in ("3", "{ softer = 3 }", '{ softer = "a\\nb.py" }', '{ lookahead = "b.py" }'):
        Path("x.toml").write_text(f"origin = {origin}\n[components.softer]\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"^x.toml: unknown component 'softer'"):
            autoranger.load("x.toml")


@pytest.fixture
def mine() -> Path:
    """A task's file with a component."""
    file = Path("mine.py")
    file.write_text(COMPONENT.format(name="OfATask") + TASK, encoding="utf-8")
    return file


def test_a_component_of_a_tasks_file_is_found_where_the_task_is_named(mine: Path, autoranger) -> None:
    status, out, err = autoranger("search", "--task", "mine.py", "--add", "of_a_task", "--sampler", "random", "--json")
    assert status == 0, err
    assert "of_a_task" in json.loads(out)["evidence"]["settings"]["components"]
    Config(components={"of_a_task": {}, "lookahead": {}}).save("x.toml")
    assert 'of_a_task = "mine.py"' in Path("x.toml").read_text()
    registry.pop("of_a_task")
    for args in (("show", "x.toml"), ("compare", "x.toml", "adamw", "--task", "digits")):
        status, _, err = autoranger(*args)
        assert status == 2
        assert "component 'of_a_task' is of 'mine.py', which is not loaded" in err
        assert "--task mine.py" in err
    status, out, _ = autoranger("show", "x.toml", "--task", "mine.py")
    assert status == 0
    assert 'import mine  # has of_a_task\noptimizer = autoranger.load("x.toml")' in out
    registry.pop("of_a_task")
    assert autoranger("compare", "x.toml", "adamw", "--task", "mine.py", "--seeds", "2")[0] == 0
    registry.pop("of_a_task")
    assert "of_a_task" in json.loads(autoranger("components", "--task", "mine.py", "--json")[1])
    assert "of_a_task" not in autoranger("components", "--task", "mine.py", "--stub")[1]


def test_a_config_never_runs_the_file_that_it_names(mine: Path) -> None:
    mine.write_text("raise SystemExit", encoding="utf-8")
    Path("x.toml").write_text('[components.of_a_task]\n[origin]\nof_a_task = "mine.py"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="import that file first"):
        autoranger.load("x.toml")


def test_a_file_that_is_run_again_defines_its_component_anew(mine: Path) -> None:
    find("mine.py")
    first = registry["of_a_task"]
    find("mine.py")
    assert registry["of_a_task"] is not first
    sys.path.insert(0, str(mine.parent.resolve()))
    __import__("mine")
    assert registry["of_a_task"].__module__ == "mine"
    other = Path("other.py")
    other.write_text(mine.read_text(), encoding="utf-8")
    with pytest.raises(ConfigError, match="'of_a_task' exists already"):
        find("other.py")


def test_importing_autoranger_loads_no_package(packages: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import autoranger, torch; "
        "autoranger.Ranger21([torch.nn.Parameter(torch.ones(2))], total_steps=3); "
        "assert not {'halving', 'softening', 'broken'} & sys.modules.keys(); "
        "import halving; assert autoranger.Config(components={'halving_direction': True})"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(packages)], check=True)

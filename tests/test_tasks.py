"""The tasks: what their data are, how they are found, and what is said when files are missing or damaged."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import runpy
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from autoranger import Config, ConfigError, DataError
from autoranger.search import tasks
from autoranger.search.population import Population
from autoranger.search.tasks import cifar
from autoranger.search.tasks.cifar import Cifar, ResNet, flip, shift
from autoranger.search.tasks.digits import Digits
from autoranger.search.tasks.task import Task

SHARED = Path(__file__).parents[2] / "shared" / "data" / "make_cifar10.py"


def test_digits_are_split_into_disjoint_stratified_parts():
    parts = Digits().data()
    assert {name: len(x) for name, (x, _) in parts.items()} == {"train": 1077, "valid": 360, "test": 360}
    rows = torch.cat([x for x, _ in parts.values()])
    assert len(rows.unique(dim=0)) == 1797, "every image is in exactly one part"
    for _, labels in parts.values():
        shares = labels.bincount() / len(labels)
        assert ((shares - 0.1).abs() < 0.01).all()
    again = Digits().data()
    assert all(torch.equal(parts[name][0], again[name][0]) for name in parts)


def test_shipped_tasks_are_found_and_described():
    shipped = tasks.shipped()
    assert {"digits", "cifar"} <= set(shipped)
    for name, task in shipped.items():
        assert tasks.find(name) is task
        assert task.summary
        assert task.source


SOURCE = """
from autoranger.search.tasks.task import Task

class Mine(Task):
    pass
"""


def test_a_task_is_found_in_a_file_and_in_a_module(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    assert tasks.find(f"{file}:Mine").name == "Mine"
    assert issubclass(tasks.find(str(file)), Task)
    monkeypatch.syspath_prepend(tmp_path)
    assert issubclass(tasks.find("mine:Mine"), Task)


@pytest.mark.parametrize(
    ("spec", "content", "words"),
    [
        ("digit", "", "did you mean 'digits'"),
        ("absent.py:Mine", None, "no task file"),
        ("mine.py:Min", SOURCE, "did you mean 'Mine'"),
        ("mine.py", "x = 1", "has 0 task classes"),
        ("mine.py", "1 / 0", "fails to import .ZeroDivisionError"),
        ("no_such_module:Mine", None, "fails to import"),
    ],
)
def test_a_task_that_is_not_there_is_an_error_with_the_fix(spec, content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("mine.py").write_text(content)
    with pytest.raises(ConfigError, match=words):
        tasks.find(spec)


# CIFAR-10


def write_cifar(folder: Path, change: str = "") -> None:
    """Ten thousand grey images in each file, of labels 0 to 9 in turn; `change` damages the third file."""
    folder.mkdir(parents=True, exist_ok=True)
    records = np.full((cifar.RECORDS, cifar.RECORD), 128, dtype=np.uint8)
    records[:, 0] = np.arange(cifar.RECORDS) % 10
    for file in cifar.FILES:
        records.tofile(folder / file)
    damaged = folder / cifar.FILES[2]
    if change == "missing":
        damaged.unlink()
    elif change == "truncated":
        damaged.write_bytes(damaged.read_bytes()[:-1])
    elif change == "labels":
        damaged.write_bytes(bytes([200]) + damaged.read_bytes()[1:])


@pytest.mark.parametrize(
    ("change", "words"),
    [("missing", "cannot read .*data_batch_3.bin"), ("truncated", "bytes instead of"), ("labels", "labels above 9")],
)
def test_damaged_cifar_files_are_named(change, words, tmp_path):
    write_cifar(tmp_path / cifar.FOLDER, change)
    with pytest.raises(DataError, match=words):
        Cifar(data_dir=tmp_path).data()


def test_cifar_is_found_in_a_folder_and_by_the_environment(tmp_path, monkeypatch):
    write_cifar(tmp_path / cifar.FOLDER)
    assert cifar.find(tmp_path) == cifar.find(tmp_path / cifar.FOLDER) == tmp_path / cifar.FOLDER
    monkeypatch.setenv("AUTORANGER_DATA", str(tmp_path))
    parts = Cifar().data()
    assert {name: tuple(x.shape) for name, (x, _) in parts.items()} == {
        "train": (45_000, 3, 16, 16),
        "valid": (2_000, 3, 16, 16),
        "test": (2_000, 3, 16, 16),
    }
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        cifar.find(tmp_path / "elsewhere")


def test_no_network_is_one_sentence_with_the_fix(tmp_path, monkeypatch):
    monkeypatch.delenv("AUTORANGER_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cifar, "URL", "http://127.0.0.1:9/cifar.tar.gz")
    with pytest.raises(DataError, match=r"cannot download CIFAR-10 .* --data-dir or AUTORANGER_DATA"):
        Cifar().data()


@pytest.fixture
def server(tmp_path):
    """A web server over a folder of archives."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    (tmp_path / "www").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield tmp_path / "www", f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("honest", [True, False])
def test_cifar_is_downloaded_once_and_checked(honest, server, tmp_path, monkeypatch):
    folder, address = server
    write_cifar(tmp_path / cifar.FOLDER)
    archive = folder / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for file in cifar.FILES:
            tar.add(tmp_path / cifar.FOLDER / file, f"{cifar.FOLDER}/{file}")
    monkeypatch.delenv("AUTORANGER_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "URL", f"{address}/cifar.tar.gz")
    monkeypatch.setattr(cifar, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest() if honest else "0" * 64)
    if not honest:
        with pytest.raises(DataError, match="cannot download CIFAR-10"):
            cifar.find(None)
        return
    found = cifar.find(None)
    assert (found / "data_batch_1.bin").read_bytes() == (tmp_path / cifar.FOLDER / "data_batch_1.bin").read_bytes()
    archive.unlink()
    assert cifar.find(None) == found, "the second time needs no network"


def test_the_resnet_of_a_gpu_trains_as_a_population():
    class Tiny(Cifar):
        def __init__(self) -> None:
            super().__init__()
            self.batch_size = 4

        def data(self):
            x, y = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10
            return {"train": (x, y), "valid": (x, y)}

        def model(self):
            return ResNet()

        def augment(self, inputs):
            return shift(flip(inputs))

    scores = Population(Tiny(), rows=2).train([Config.preset("ranger21"), Config()], [0], 2)["valid"]
    assert np.isfinite(scores).all()


def test_augmentation_moves_and_mirrors_whole_images():
    torch.manual_seed(0)
    images = torch.arange(64 * 3 * 8 * 8.0).view(64, 3, 8, 8)
    mirrored = flip(images)
    same = (mirrored == images).flatten(1).all(1)
    assert 15 < same.sum() < 50
    assert torch.equal(mirrored[~same], images[~same].flip(-1))
    moved = shift(images, most=2)
    padded = torch.nn.functional.pad(images, (2,) * 4, mode="reflect")
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1).flatten(2, 3)  # every possible position
    assert ((windows == moved[:, :, None]).flatten(3).all(3).all(1).sum(1) == 1).all()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason=f"needs {SHARED.name}, which unpacks the real CIFAR-10")
def test_a_proxy_learns_real_photographs(tmp_path):
    maker = runpy.run_path(str(SHARED))
    maker["main"](str(tmp_path))
    task = Cifar(data_dir=tmp_path)
    inputs, targets = task.data()["train"]
    assert inputs.mean(dim=(0, 2, 3)).abs().max() < 0.05, "the channels are normalized"
    assert targets.bincount().min() > 4_000
    configs = [Config.preset("ranger21", lr=0.03), Config(lr=3e-3)]
    scores = Population(task).train(configs, [0, 1], 300, splits=("valid", "test"))
    assert scores["valid"].min() > 0.2
    assert abs(scores["valid"].mean() - scores["test"].mean()) < 0.03


def test_archives_are_never_unpickled():
    for file in (Path(__file__).parents[1] / "search").rglob("*.py"):
        text = file.read_text()
        assert "pickle" not in text
        assert "eval(" not in text.replace(".eval()", "")
        assert not io.StringIO(text).read().count("torch.load")

"""The tasks: what their data are, how they are found, and that a population trains them as one would alone."""

from __future__ import annotations

import json
import math
import re
import runpy
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autoranger import Config, ConfigError, cli
from autoranger.search import tasks
from autoranger.search.population import Population
from autoranger.search.tasks import fashion, shakespeare
from autoranger.search.tasks.cifar import Cifar, cut_out, flip, shift
from autoranger.search.tasks.diabetes import Diabetes
from autoranger.search.tasks.digits import Digits
from autoranger.search.tasks.fashion import Fashion
from autoranger.search.tasks.shakespeare import Shakespeare
from autoranger.search.tasks.task import Task
from tests.data_files import write_all
from tests.test_population import alone

SHARED = Path(__file__).parents[2] / "shared" / "data"
README = Path(__file__).parents[1] / "search" / "tasks" / "README.md"
SHIPPED = tasks.shipped()

each_task = pytest.mark.parametrize("name", SHIPPED)
each_proxy = pytest.mark.parametrize("device", ["cpu", "cuda"])


# The data of every task


@pytest.fixture(scope="module")
def data_files(tmp_path_factory):
    """A folder with everything that tasks read, of random content, and the SHA-256 of its text."""
    folder = tmp_path_factory.mktemp("data")
    return folder, write_all(folder)


SIZES = {
    "cifar": (45_000, 2_000, 2_000),
    "cifar_nf": (45_000, 2_000, 2_000),
    "diabetes": (266, 88, 88),
    "digits": (1_077, 360, 360),
    "fashion": (50_000, 2_000, 2_000),
    "shakespeare": (62_740, 512, 512),
}


@each_task
def test_parts_are_disjoint(name, data_files, monkeypatch):
    folder, checksum = data_files
    monkeypatch.setattr(shakespeare, "SHA256", checksum)
    parts = SHIPPED[name](data_dir=folder).data()
    assert list(parts) == ["train", "valid", "test"]
    assert tuple(len(x) for x, _ in parts.values()) == SIZES[name]
    assert all(len(x) == len(y) for x, y in parts.values())
    rows = torch.cat([x.flatten(1).double() for x, _ in parts.values()])
    weights = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert len((rows @ weights).unique()) == len(rows), "every example is in exactly one part"


@pytest.mark.parametrize("kind", [Digits, Diabetes])
def test_random_splits_are_the_same_every_time(kind):
    first, again = kind().data(), kind().data()
    assert all(torch.equal(first[part][i], again[part][i]) for part in first for i in (0, 1))


def test_digits_are_stratified():
    for _, labels in Digits().data().values():
        shares = labels.bincount() / len(labels)
        assert ((shares - 0.1).abs() < 0.01).all()


def test_diabetes_is_standardized_by_its_training_part():
    inputs, targets = Diabetes().data()["train"]
    for x in (inputs, targets):
        assert x.mean(dim=0).abs().max() < 1e-6
        torch.testing.assert_close(x.var(dim=0, correction=0), torch.ones(x.shape[1:]))


def test_targets_of_the_text_are_one_character_ahead():
    text = torch.arange(100)
    inputs, targets = shakespeare.windows(text, length=8, stride=4)
    assert len(inputs) == (100 - 9) // 4 + 1
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs[:, 0], torch.arange(0, 92, 4))


# Every model, loss and metric

SHAPES = {
    "cifar": lambda task: (3, task.side, task.side),
    "cifar_nf": lambda task: (3, task.side, task.side),
    "fashion": lambda task: (1, 14, 14) if task.small else (1, 28, 28),
}


def few_examples(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """24 examples: real ones, or random ones of the right shape where the real ones are in files."""
    generator = torch.Generator().manual_seed(0)
    if task.name in SHAPES:
        return torch.randn(24, *SHAPES[task.name](task), generator=generator), torch.arange(24) % 10
    if isinstance(task, Shakespeare):
        text = torch.randint(0, 65, (24, task.context + 1), generator=generator)
        return text[:, :-1], text[:, 1:]
    return tuple(part[:24] for part in task.data()["train"])


def exact(name: str, device: str, batch_size: int) -> Task:
    """A task's proxy for a device, in float64 on a CPU on few examples, with a metric that shows any difference."""

    class Exact(SHIPPED[name]):
        resplit = False  # see test_resplit

        def data(self):
            x, y = few_examples(task)
            x, y = (part.double() if part.is_floating_point() else part for part in (x, y))
            return {"train": (x[:16], y[:16]), "valid": (x[16:], y[16:]), "test": (x[16:], y[16:])}

        def model(self):
            return super().model().double()

        def metric(self, output, target):
            return -self.loss(output, target)

    task = SHIPPED[name](device)
    chosen = Exact(device)
    chosen.device, chosen.batch_size = torch.device("cpu"), batch_size
    return chosen


CONFIGS = [
    Config.preset("ranger21", lr=3e-3),
    Config(lr=1e-3),
    Config(lr=1e-3, components={"lookahead": {"k": 2}, "gradient_centralization": {}, "norm_loss": {}}),
]


@each_proxy
@each_task
def test_a_row_of_a_population_is_the_training_of_its_config_alone(name, device):
    large = device == "cuda" or name == "cifar_nf"
    task, steps = exact(name, device, 2 if large else 4), 2 if large else 4
    configs, seeds = (CONFIGS[:2], [3]) if large else (CONFIGS, [3, 11])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # vmap does not refuse the model
        scores = Population(task).train(configs, seeds, steps)["valid"]
    expected = [[alone(task, config, seed, steps) for seed in seeds] for config in configs]
    np.testing.assert_allclose(scores, expected, rtol=1e-7)
    assert len(np.unique(scores)) == scores.size, "configs and seeds must differ from each other"


WORST = {"diabetes": -math.inf, "shakespeare": -math.inf}
BEST = {"shakespeare": 0.0}


@each_task
def test_metrics_keep_to_their_bounds_and_average_over_batches(name):
    task = SHIPPED[name]()
    torch.manual_seed(0)
    inputs, targets = few_examples(task)
    output = task.model().eval()(inputs).detach()
    whole = task.metric(output, targets)
    assert WORST.get(name, 0.0) <= whole <= BEST.get(name, 1.0)
    parts = torch.stack([task.metric(output[:8], targets[:8]), 2 * task.metric(output[8:], targets[8:])])
    torch.testing.assert_close(parts.sum() / 3, whole)
    perfect = targets if name == "diabetes" else 1e4 * nn.functional.one_hot(targets, output.shape[-1]).float()
    torch.testing.assert_close(float(task.metric(perfect, targets)), BEST.get(name, 1.0))


def test_a_uniform_prediction_of_the_text_costs_the_logarithm_of_the_characters():
    assert float(Shakespeare().metric(torch.zeros(2, 16, 65), torch.zeros(2, 16).long())) == pytest.approx(
        -math.log2(65)
    )


def test_the_transformer_sees_no_future():
    torch.manual_seed(0)
    model, x = Shakespeare().model(), torch.randint(0, 65, (3, 16))
    changed = x.clone()
    changed[:, 9] = (x[:, 9] + 1) % 65
    before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=0)
    assert (before[:, 9:] != after[:, 9:]).any(dim=-1).all()


@each_proxy
@each_task
def test_the_full_length_is_longer_and_leaves_the_proxy_alone(name, device):
    task = SHIPPED[name](device)
    before = task.steps
    assert task.full().steps > 3 * task.steps
    assert task.steps == before
    assert type(task.full()) is type(task)


def test_compare_can_train_at_full_length(tmp_path, monkeypatch, capsys):
    (tmp_path / "short.py").write_text("from tests.toy import Toy\n\nclass Short(Toy):\n    full_steps = 16\n")
    monkeypatch.chdir(tmp_path)
    command = ["autoranger", "compare", "sgd", "adamw", "--task", "short.py", "--seeds", "2", "--no-sweep", "--json"]
    for more, steps in (([], 12), (["--full"], 16)):
        monkeypatch.setattr("sys.argv", [*command, *more])
        with pytest.raises(SystemExit):
            cli.main()
        assert json.loads(capsys.readouterr().out)["steps"] == steps


# How tasks are found


def test_shipped_tasks_are_found_and_described():
    assert {"cifar", "cifar_nf", "diabetes", "digits", "fashion", "shakespeare"} <= set(SHIPPED)
    page = README.read_text(encoding="utf-8")
    for name, task in SHIPPED.items():
        assert tasks.find(name) is task
        assert task.summary
        assert task.source
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        parameters = sum(p.numel() for p in task().model().parameters())
        assert f"{parameters:,}" in row or f"{parameters / 1e6:.1f} M" in row


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


def blocks(language: str) -> list[str]:
    """The code blocks of the page on tasks."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def install(folder: Path, name: str, entries: dict[str, str]) -> None:
    """What an installer leaves behind of a package that offers tasks."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{entry} = {target}" for entry, target in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{tasks.GROUP}]", *lines, ""]))


def test_a_package_offers_its_task_by_name(tmp_path, monkeypatch):
    (source,), (project,) = blocks("python"), (tomllib.loads(block) for block in blocks("toml"))
    (tmp_path / "rings.py").write_text(source)
    install(tmp_path, project["project"]["name"], project["project"]["entry-points"][tasks.GROUP])
    monkeypatch.syspath_prepend(tmp_path)
    kind = tasks.find("rings")
    assert tasks.available()["rings"] is kind
    assert kind().full().steps == 2000
    scores = Population(kind()).train([Config(lr=0.03)], [0], 200, splits=("valid", "test"))
    assert scores["test"].min() > 0.8


BROKEN = {
    "broken": ("offer:Missing", "task 'broken' of offering fails to load from offer:Missing .AttributeError"),
    "absent": ("no_such_module:X", "task 'absent' of offering fails to load"),
    "number": ("offer:NUMBER", "task 'number' of offering is not a task class"),
}


def test_a_broken_entry_point_does_not_break_others(tmp_path, monkeypatch):
    (tmp_path / "offer.py").write_text(SOURCE + "\nNUMBER = 3\n")
    entries = {name: target for name, (target, _) in BROKEN.items()}
    install(tmp_path, "offering", entries | {"good": "offer:Mine", "digits": "offer:Mine"})
    monkeypatch.syspath_prepend(tmp_path)
    for name, (_, words) in BROKEN.items():
        with pytest.raises(ConfigError, match=words):
            tasks.find(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = tasks.available()
    assert len(caught) == len(BROKEN)
    assert available.keys() - SHIPPED.keys() == {"good"}
    assert available["digits"] is tasks.find("digits") is Digits, "names of shipped tasks are taken"
    assert tasks.find("good").name == "good"
    with pytest.raises(ConfigError, match="did you mean 'good'"):
        tasks.find("goood")


# Pictures


def test_cutout_removes_one_square_of_each_image():
    torch.manual_seed(0)
    images = torch.rand(200, 3, 8, 8) + 1
    cut = cut_out(images, 4)
    gone = cut == 0
    assert torch.equal(cut[~gone], images[~gone])
    assert (gone.sum(dim=(-2, -1)) == 16).all()
    assert torch.equal(gone.any(dim=-1).sum(dim=-1), torch.full((200, 3), 4))
    assert torch.equal(gone.any(dim=-2).sum(dim=-1), torch.full((200, 3), 4))
    assert gone.any(dim=0).all(), "it may be anywhere"


@pytest.mark.parametrize(("device", "smoothing"), [("cpu", 0.0), ("cuda", 0.2)])
def test_labels_are_smoothed_for_the_larger_net_only(device, smoothing):
    scores, labels = torch.randn(50, 10), torch.randint(0, 10, (50,))
    expected = torch.nn.functional.cross_entropy(scores, labels, label_smoothing=smoothing)
    torch.testing.assert_close(Cifar(device).loss(scores, labels), expected)


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


# Real data, where there are any


def needs(path: Path, what: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"needs {what}, of which {path} is a sign")


@pytest.mark.slow
@needs(SHARED / "make_cifar10.py", "the script that unpacks the real CIFAR-10")
def test_a_proxy_learns_real_photographs(tmp_path):
    maker = runpy.run_path(str(SHARED / "make_cifar10.py"))
    maker["main"](str(tmp_path))
    task = Cifar(data_dir=tmp_path)
    inputs, targets = task.data()["train"]
    assert inputs.mean(dim=(0, 2, 3)).abs().max() < 0.05, "the channels are normalized"
    assert targets.bincount().min() > 4_000
    configs = [Config.preset("ranger21", lr=0.03), Config(lr=3e-3)]
    scores = Population(task).train(configs, [0, 1], 300, splits=("valid", "test"))
    assert scores["valid"].min() > 0.2
    assert abs(scores["valid"].mean() - scores["test"].mean()) < 0.03


@needs(fashion.SYSTEM[0], "Debian's package dataset-fashion-mnist")
def test_a_proxy_learns_real_clothing(monkeypatch):
    monkeypatch.delenv("AUTORANGER_DATA", raising=False)
    task = Fashion()
    inputs, targets = task.data()["train"]
    assert inputs.mean().abs() < 0.01, "the images are normalized"
    assert targets.bincount().min() > 4_800
    scores = Population(task).train([Config(lr=0.01)], [0, 1], 200, splits=("valid", "test"))
    assert scores["valid"].min() > 0.7
    assert abs(scores["valid"].mean() - scores["test"].mean()) < 0.05


@needs(SHARED / "tinyshakespeare.txt", "the real text")
def test_a_proxy_learns_the_real_text():
    task = Shakespeare(data_dir=SHARED)
    inputs, _ = task.data()["train"]
    letters = sorted(set((SHARED / "tinyshakespeare.txt").read_text(encoding="ascii")))
    assert "".join(letters[i] for i in inputs[0]) == "First Citizen:\nB"
    scores = Population(task).train([Config(lr=0.01)], [0, 1], 100)
    assert scores["valid"].min() > -4.3, "fewer bits than the characters' frequencies need"


def test_data_are_never_unpickled():
    files = (Path(__file__).parents[1] / "search").rglob("*.py")
    # What workers do goes to processes of one's own by a pipe, pickled. Nothing that is read from disk is.
    for file in (file for file in files if file.name not in ("crew.py", "child.py", "source.py")):
        text = file.read_text(encoding="utf-8")
        for word in ("import pickle", "pickle.load", "allow_pickle=True", "torch.load", " eval("):
            assert word not in text

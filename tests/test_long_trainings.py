"""Long trainings that are interrupted go on from a checkpoint, and end as if nothing had happened."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autoranger import Config
from autoranger.search.crew.batch import Batch, Training
from autoranger.search.crew.crew import Crew
from autoranger.search.engine.pool import Pool
from autoranger.search.engine.process import Processes, can_fork
from autoranger.search.population import Population, checkpoint
from autoranger.search.population.checkpoint import Checkpoint, Checkpoints
from autoranger.search.population.population import POLL
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from tests import toy
from tests.test_search import PLAN, SMALL

STEPS, SEEDS = 40, [3, 11]


class TurnedConvolutions(toy.Pictures):
    """With a transposed convolution, whose rows are not one after another in memory."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 49, 2))


class NormalizedAlone(toy.Normalized):
    """Buffers that training changes, in models that vmap refuses."""

    def model(self) -> nn.Module:
        return toy.Branching(*super().model())


class Counting(nn.Linear):
    """A model that remembers how often it was called."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + 0.01 * self.calls)


class Rememberful(toy.Toy):
    def model(self) -> nn.Module:
        return Counting(4, 2)


class Drawing(nn.Linear):
    """A model with a generator of its own."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.rng = np.random.default_rng(0)


class WithGenerator(toy.Toy):
    def model(self) -> nn.Module:
        return Drawing()


class KilledError(BaseException):
    """Not an Exception, so that it is not taken for an error of the model."""


def stopping(after: int) -> Any:
    """A pulse that ends a training after so many passes through the model."""
    passes = [0]

    def pulse() -> None:
        passes[0] += 1
        if passes[0] > after:
            raise KilledError

    return pulse


def trained(population: Population, *, after: int | None = None, curve: int = 0) -> dict[str, Any]:
    """The scores of some candidates, one of which diverges; KilledError after so many passes through the model."""
    passes, stop = [0], stopping(after) if after is not None else lambda: None

    def pulse() -> None:
        passes[0] += 1
        stop()

    population.pulse = pulse
    configs = [*toy.CONFIGS, toy.WILD, Config(lr=0.02, components={"lookahead": {}, "positive_negative_momentum": {}})]
    scores = population.train(configs, SEEDS, STEPS, splits=("valid", "test"), curve=curve)
    return scores | {"passes": passes[0], "failures": dict(population.failures)}


def steps_of(population: Population, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the first step of each training."""
    begun, batches = list[int](), population._batches

    def noted(seeds: Any, steps: int, first: int = 0) -> Any:
        begun.append(first)
        return batches(seeds, steps, first)

    monkeypatch.setattr(population, "_batches", noted)
    return begun


@pytest.mark.filterwarnings("ignore:torch.func.vmap refuses")
@pytest.mark.parametrize("task", [toy.Toy, toy.Noisy, NormalizedAlone, TurnedConvolutions])
def test_an_interrupted_training_ends_equal(task: type[toy.Toy], tmp_path: Path, monkeypatch: Any) -> None:
    whole = trained(Population(task()), curve=4)
    checkpoints = Checkpoints(tmp_path / "c", every=0.0)
    population = Population(task())
    population.checkpoints = checkpoints
    with pytest.raises(KilledError):
        trained(population, after=whole["passes"] // 3, curve=4)
    assert list((tmp_path / "c").iterdir()), "there is a checkpoint"
    again = Population(task())
    again.checkpoints = Checkpoints(tmp_path / "c", every=0.0)
    begun = steps_of(again, monkeypatch)
    found = trained(again, curve=4)
    assert 0 < max(begun) < STEPS, "it goes on where it was"
    assert found["passes"] < whole["passes"]
    for name in ("valid", "test", "curve"):
        np.testing.assert_array_equal(found[name], whole[name], err_msg="to the last bit")
    assert np.isnan(found["valid"]).any()
    assert found["failures"] == whole["failures"]
    assert not list((tmp_path / "c").iterdir()), "what is done needs none"


@pytest.mark.parametrize("task", [Rememberful, WithGenerator])
@pytest.mark.filterwarnings("ignore:torch.func.vmap refuses")
def test_a_model_that_remembers_more_than_tensors_begins_anew(task: type[toy.Toy], tmp_path: Path) -> None:
    population = Population(task())
    population.checkpoints = Checkpoints(tmp_path / "c", every=0.0)
    with pytest.warns(UserWarning, match="begin anew if they are interrupted: the model or its task keeps"):
        trained(population)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("damage", ["cut", "noise", "another"])
def test_a_damaged_checkpoint_counts_for_none(damage: str, tmp_path: Path) -> None:
    population = Population(toy.Toy())
    population.checkpoints = Checkpoints(tmp_path, every=0.0)
    with pytest.raises(KilledError):
        trained(population, after=30)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        changed = {"cut": content[:-7], "noise": bytes(100), "another": b""}[damage]
        file.write_bytes(changed)
        if damage == "another":
            save_file({"x": torch.ones(2)}, file, {"step": "8", "failures": "{}"})
    np.testing.assert_array_equal(trained(population)["valid"], trained(Population(toy.Toy()))["valid"])


def test_a_full_disk_costs_the_checkpoints_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_whole", full)
    population = Population(toy.Toy())
    population.checkpoints = Checkpoints(tmp_path, every=0.0)
    with pytest.warns(UserWarning, match="begin anew if they are interrupted: .*No space left") as said:
        found = trained(population)
    assert len(said) == 1
    np.testing.assert_array_equal(found["valid"], trained(Population(toy.Toy()))["valid"])


def test_a_search_goes_on_from_checkpoints_and_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, chunks, train = tmp_path / "j", [0], Population._train_chunk

    def run(name: str, **options: Any) -> Any:
        checkpoints = Checkpoints.beside(str(path), name)
        checkpoints.every = 0.0
        storage = open_storage(str(path))
        return search(toy.Toy(), storage, name, space=SMALL, plan=PLAN, checkpoints=checkpoints, **options)

    def killed(self: Population, configs: Any, seeds: Any, steps: int, *rest: Any) -> Any:
        found = train(self, configs, seeds, steps, *rest)
        if steps == PLAN.steps:
            chunks[0] += 1
            raise KeyboardInterrupt
        return found

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr(Population, "_train_chunk", killed)
        with pytest.raises(KeyboardInterrupt):
            run("a/b")
    assert list((tmp_path / "j.checkpoints").rglob("*.safetensors")), "of the chunk whose results were not written"
    again = run("a/b", resume=True)
    assert (again.config, again.evidence) == (whole.config, whole.evidence)
    assert [p.name for p in tmp_path.iterdir()] == ["j"]


@pytest.mark.skipif(not can_fork(), reason="the worker is a fork, which inherits what the test changes")
def test_what_a_killed_worker_had_begun_goes_on_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(Population(toy.Toy()), curve=4)
    folder, killed, begun = tmp_path / "c", tmp_path / "killed", tmp_path / "begun"
    write, batches = Checkpoint.write, Population._batches

    def deadly(self: Checkpoint, chunk: Any, step: int, curve: Tensor) -> None:
        write(self, chunk, step, curve)
        if not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def noted(self: Population, seeds: Any, steps: int, first: int = 0) -> Any:
        if steps == STEPS:
            with begun.open("a") as file:
                file.write(f"{first} ")
        return batches(self, seeds, steps, first)

    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(Checkpoint, "write", deadly)
    monkeypatch.setattr(Population, "_batches", noted)
    population = Population(toy.Toy())
    population.checkpoints = Checkpoints(folder)
    progress = list[int]()
    with closing(Pool([Processes(Training(toy.Toy(), "metric"), 1, threads=1)])) as pool:
        configs = [*toy.CONFIGS, toy.WILD, Config(lr=0.02, components={"lookahead": {}})]
        found = Crew(population, pool).train(configs, SEEDS, STEPS, curve=4, progress=progress.append)
    assert begun.read_text() == f"0 0 {POLL} ", "two chunks, and the first one again"
    assert sum(progress) == len(configs) * len(SEEDS) * STEPS
    for name in ("valid", "curve"):
        np.testing.assert_array_equal(found[name][:3], whole[name][:3], err_msg="to the last bit")
    assert not list(folder.iterdir()), "what is done needs none"


def test_a_worker_that_does_not_see_the_folder_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    batch = Batch(tuple(toy.CONFIGS), tuple(SEEDS), STEPS, ("valid",), checkpoints=str(tmp_path / "elsewhere"))
    assert not Training(toy.Toy(), "metric")(batch, 0, lambda told: None).error
    assert not list(tmp_path.iterdir())


def test_only_what_is_written_loses_its_checkpoint(tmp_path: Path) -> None:
    """Even where a chunk had been cut in two for lack of memory, and whoever wrote the file."""
    checkpoints = Checkpoints(tmp_path, every=0.0)
    one, *others = (Config(lr=lr) for lr in (0.01, 0.02, 0.03))
    for configs in ([one], others):
        population = Population(toy.Toy())
        population.checkpoints = checkpoints
        population.pulse = stopping(30)
        with pytest.raises(KilledError):
            population.train(configs, SEEDS, STEPS)
    assert len(list(tmp_path.iterdir())) == 2
    Checkpoints(tmp_path).drop([one, others[0]])
    assert len(list(tmp_path.iterdir())) == 1
    Checkpoints(tmp_path).drop(others)
    assert not list(tmp_path.iterdir())

"""Populations on a GPU: without one, that nothing waits for the device or moves between it and the host."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autoranger import Config, ConfigError
from autoranger.components.core.component import registry
from autoranger.search.population import Population
from autoranger.search.population.chunk import Chunk
from autoranger.search.population.memory import release
from autoranger.search.population.replay import Replayed
from autoranger.search.tasks.cifar import Cifar
from autoranger.search.tasks.cifar_nf import CifarNormalizerFree
from autoranger.search.tasks.fashion import Fashion
from autoranger.search.tasks.shakespeare import Shakespeare
from autoranger.search.tasks.task import Task
from autoranger.search.vectorization import forked, reseed
from tests import toy
from tests.conftest import Transfers, Uploads
from tests.toy import CONFIGS, SEEDS, WILD

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

STEPS = 20


def pictures(*shape: int) -> Any:
    """Data of that shape, for a task that would have to read its own."""
    x, y = torch.zeros(12, *shape), torch.zeros(12, dtype=torch.int64)
    return lambda self: {"train": (x, y), "valid": (x, y), "test": (x, y)}


def text(self: Shakespeare) -> Any:
    x = torch.zeros(12, self.context, dtype=torch.int64)
    return {"train": (x, x), "valid": (x, x), "test": (x, x)}


USUAL = {
    Cifar: pictures(3, 32, 32),
    CifarNormalizerFree: pictures(3, 16, 16),
    Fashion: pictures(1, 28, 28),
    Shakespeare: text,
} | dict.fromkeys([toy.Toy, toy.Pictures, toy.Text, toy.Noisy, toy.TiedTask])
"""The shipped tasks of which a GPU gets another model, and others, with data where theirs are not at hand."""


@pytest.mark.parametrize(
    ("kind", "configs"),
    [*((kind, CONFIGS) for kind in USUAL), (toy.Pictures, [Config(components={name: {}}) for name in registry])],
    ids=[*(kind.__name__ for kind in USUAL), "each component"],
)
def test_training_moves_nothing_between_host_and_device(
    kind: type[Task], configs: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device tensors have no numbers: whatever looks at one raises, and a transfer is seen."""
    if USUAL[kind]:
        monkeypatch.setattr(kind, "data", USUAL[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no fallback to one-by-one training
        population = Population(kind("meta"))
    chunk = Chunk(population, configs, SEEDS, 10)
    batches = population._batches(SEEDS, 10)
    for t in range(4):
        with Transfers() as transfers, Uploads() as uploads:
            chunk.advance(*next(batches))
        assert t == 0 or not transfers.found + uploads.found
        if t == 1:
            with pytest.raises((RuntimeError, NotImplementedError)):
                chunk.poll()
            chunk.alive = (~chunk.failed)[:, None].repeat(1, len(chunk.thetas))  # as it is once a row has diverged
    held = [*chunk.params.values(), *chunk.buffers.values(), *chunk.optimizer.buffers(), chunk.failed]
    assert {x.device.type for x in held} == {"meta"}


def test_a_gpu_is_seeded_before_anything_has_used_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then torch has no generators for it."""
    generators = torch.Generator(), torch.Generator()
    monkeypatch.setattr(torch.cuda, "default_generators", ())
    monkeypatch.setattr(torch.cuda, "init", lambda: monkeypatch.setattr(torch.cuda, "default_generators", generators))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with forked(torch.device("cpu")):
        reseed(torch.device("cuda"), 5)
        reseed(torch.device("cuda:0"), 6)
        assert torch.default_generator.initial_seed() == 6, "from which a model may draw, too"
    assert [g.initial_seed() for g in generators] == [6, 5]


@cuda
def test_a_real_gpu_is_seeded_before_anything_has_used_it() -> None:
    code = """
import torch
from autoranger.search.vectorization import reseed
reseed(torch.device("cuda"), 5)
x = torch.rand(3, device="cuda")
torch.cuda.manual_seed(5)
assert (torch.rand(3, device="cuda") == x).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@cuda
@pytest.mark.parametrize("kind", [toy.Toy, toy.Pictures, toy.Normalized, toy.TiedTask, toy.Frozen])
def test_a_gpu_and_a_cpu_agree(kind: type[toy.Toy]) -> None:
    for device in {"cuda", f"cuda:{torch.cuda.device_count() - 1}"}:
        found = Population(kind(device)).train([*CONFIGS, WILD], SEEDS, STEPS, curve=2)
        expected = Population(kind()).train([*CONFIGS, WILD], SEEDS, STEPS, curve=2)
        for name in ("valid", "curve"):  # cuDNN computes convolutions in TF32
            np.testing.assert_allclose(found[name], expected[name], rtol=2e-2 if kind is toy.Pictures else 2e-3)


class LongText(toy.Text):
    """With more than 3,072 characters in a batch, for which an embedding's gradient has another kernel.

    That kernel adds up in any order, so a training at a high learning rate differs from one run to the next.
    """

    batch_size = 512


@cuda
@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [toy.Toy, toy.Pictures, toy.Noisy, toy.TiedTask, LongText])
def test_graphs_change_nothing(kind: type[toy.Toy], precision: torch.dtype | None) -> None:
    """With dropout, noise on the batches, and rows that diverge; twice, since the second training reuses memory."""
    population = Population(kind("cuda"), rows=4, precision=precision, graphs=True)
    plain = Population(kind("cuda"), rows=4, precision=precision, graphs=False)
    tame = [replace(c, lr=min(c.lr, 0.01)) for c in CONFIGS] if kind is LongText else CONFIGS
    for configs in ([*tame, WILD], tame):
        found, expected = (p.train(configs, SEEDS, STEPS, curve=2) for p in (population, plain))
        for name in ("valid", "curve"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-2 if precision else 1e-3)


@cuda
@pytest.mark.parametrize("kind", [toy.Toy, toy.Pictures, toy.Text])
def test_low_precision_is_close_to_full(kind: type[toy.Toy]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no fallback to one-by-one training
        mixed = Population(kind("cuda"), precision=torch.bfloat16).train(CONFIGS, SEEDS, STEPS)["valid"]
    full = Population(kind("cuda")).train(CONFIGS, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(mixed, full, rtol=0.1, atol=0.02)
    assert (mixed != full).any()


@cuda
def test_random_numbers_of_a_graph_follow_the_seed() -> None:
    device = torch.device("cuda")
    drawn, scale = torch.zeros(2, 5, device=device), torch.ones((), device=device)

    def draw(x: Tensor) -> None:
        drawn[0] = torch.rand(5, device=device) * x
        drawn[1] = torch.nn.functional.dropout(drawn[0], 0.5)

    replayed, found, expected = Replayed(draw, torch.cuda.Stream()), [], []
    with forked(device):
        for call, out in ((replayed, found), (draw, expected)):
            for seed in (1, 2, 3, 4, 5, 4):
                reseed(device, seed)
                call(scale)
                out.append(drawn.clone())
    assert all((x == y).all() for x, y in zip(found, expected, strict=True))
    assert (found[3] != found[4]).any()


@cuda
@pytest.mark.parametrize("graphs", [False, True])
def test_memory_is_free_after_training(graphs: bool) -> None:
    """Without the garbage collector's help."""
    population = Population(toy.Pictures("cuda"), rows=4, graphs=graphs)
    used = []
    gc.disable()
    try:
        for _ in range(3):
            population.train([*CONFIGS, WILD], SEEDS, STEPS)
            torch.cuda.synchronize()
            release(population.device)
            used.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    finally:
        gc.enable()
    assert used[1] == used[2]


@cuda
@pytest.mark.parametrize("kind", [toy.Toy, toy.Pictures, toy.Noisy])
def test_no_training_step_waits_for_the_gpu(kind: type[toy.Toy]) -> None:
    population = Population(kind("cuda"))
    chunk = Chunk(population, CONFIGS, SEEDS, STEPS)
    try:
        with forked(population.device):
            for t, (inputs, targets) in enumerate(population._batches(SEEDS, STEPS)):
                chunk.advance(inputs, targets)
                if t == 10:
                    chunk.failed[0] = True
                    chunk.poll()  # which waits, and so does what comes for the first time in the step after it
                torch.cuda.set_sync_debug_mode("error" if t > 2 and t not in (9, 10) else "default")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@cuda
def test_training_leaves_the_gpus_generator_alone() -> None:
    population = Population(toy.Noisy("cuda"))
    torch.cuda.manual_seed(5)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(5)
    population.train(CONFIGS[:1], [0], 3)
    assert (torch.rand(3, device="cuda") == expected).all()


class Looking(toy.Noisy):
    """With a loss that looks at a value, which a capture forbids."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return super().loss(output, target) * (2 if int(target.sum()) < 0 else 1)


@cuda
def test_random_numbers_go_on_after_a_capture_that_has_failed() -> None:
    with pytest.raises(ConfigError, match="cannot be a CUDA graph"):
        Population(Looking("cuda"), graphs=True).train(CONFIGS, SEEDS, STEPS)
    found, expected = (Population(toy.Noisy("cuda"), graphs=g).train(CONFIGS, SEEDS, STEPS) for g in (True, False))
    np.testing.assert_allclose(found["valid"], expected["valid"], rtol=1e-3)


@cuda
def test_a_step_that_cannot_be_a_graph_trains_all_the_same() -> None:
    with pytest.warns(UserWarning, match="cannot be a CUDA graph"):
        found = Population(Looking("cuda")).train([*CONFIGS, WILD], SEEDS, STEPS)["valid"]
    expected = Population(Looking("cuda"), graphs=False).train([*CONFIGS, WILD], SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)

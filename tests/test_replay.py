"""CUDA graphs, with a recorder of operations in the place of CUDA's: a graph repeats what it has captured, no more."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoranger import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.population.chunk import Chunk
from autoranger.search.population.memory import is_out_of_memory
from autoranger.search.population.population import POLL, Population
from autoranger.search.population.replay import Replayed
from tests import toy
from tests.toy import CONFIGS, SEEDS, WILD

STEPS = 3 * POLL + 4


class Graph(TorchDispatchMode):
    """What a CUDA graph is, on a CPU: the operations of a capture, repeated on the memory that they had.

    To know what shapes there are, a capture here does run; afterwards all memory that was there before is put back.
    """

    captured: list[Graph] = []

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.made: set[int] = set()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self.replays = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nMore about it.")
        for x in tensors((args, kwargs)):
            place = x.untyped_storage().data_ptr()
            if place not in self.made and place not in self.before:
                whole = torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
                self.before[place] = whole, whole.clone()
        result = func(*args, **kwargs)
        outputs = tensors(result)
        self.made |= {x.untyped_storage().data_ptr() for x in outputs} - self.before.keys()
        self.calls.append((func, args, kwargs, outputs))
        return result

    def put_back(self) -> None:
        for whole, old in self.before.values():
            whole.copy_(old)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, outputs in self.calls:
            for held, new in zip(outputs, tensors(func(*args, **kwargs)), strict=True):
                if held.data_ptr() != new.data_ptr():
                    held.copy_(new)


def tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


class Stream:
    """Remembers what has waited for what."""

    def __init__(self, name: str) -> None:
        self.name, self.waited = name, []

    def wait_stream(self, other: Stream) -> None:
        self.waited.append(other.name)


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch) -> Any:
    """CUDA's part of `Replayed`, played by the above; the side stream."""
    main, side, current = Stream("main"), Stream("side"), ["main"]

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        before = list(current)
        current.append(stream.name)
        try:
            yield
        finally:
            current[:] = before

    @contextmanager
    def capture(graph: Graph, stream: Stream) -> Iterator[None]:
        current.append(stream.name)
        try:
            with torch.random.fork_rng([]), graph:  # a capture draws nothing
                yield
        finally:
            graph.put_back()
        Graph.captured.append(graph)
        current.pop()  # not after an error, as in torch.cuda.graph

    monkeypatch.setattr(Graph, "captured", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    side.main, side.current = main, current
    return side


def test_each_call_counts_once_and_the_last_ones_run_no_python(side: Any) -> None:
    total, ran, given = torch.zeros(()), [], []

    def add(x: Tensor, y: Tensor) -> None:
        ran.append(side.current[-1])
        total.add_((x * y).sum())

    replayed, expected = Replayed(add, side, warmups=2), 0.0
    for i in range(7):
        x, y = torch.full((3,), float(i)), torch.full((3,), 2.0)
        replayed(x, y)
        expected += 6.0 * i
        assert float(total) == expected
        assert len(ran) == min(i + 1, 3)
        given.append(x.fill_(torch.nan))  # a batch's memory may be used for something else after its step
    assert ran == ["side"] * 3
    assert all(x.isnan().all() for x in given), "nobody else's memory is written to"
    assert [graph.replays for graph in Graph.captured] == [5]
    assert (side.waited, side.main.waited) == (["main"] * 2, ["side"] * 2)


def with_graphs(task: toy.Toy, side: Any, *, insist: bool = True, **options: Any) -> Population:
    population = Population(task, **options)
    population.stream, population.graphs = side, insist or None
    return population


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [toy.Toy, toy.Pictures, toy.Noisy, toy.TiedTask, toy.Frozen])
def test_graphs_change_nothing(kind: type[toy.Toy], precision: torch.dtype | None, side: Any) -> None:
    """Neither dropout, which follows the seed of each step, nor batch statistics nor schedules are as captured."""
    options = {"precision": precision, "rows": 4}
    expected = Population(kind(), **options).train(CONFIGS, SEEDS, STEPS, curve=2)
    found = with_graphs(kind(), side, **options).train(CONFIGS, SEEDS, STEPS, curve=2)
    for name in ("valid", "curve"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)
    assert [graph.replays for graph in Graph.captured] == [STEPS - 3] * 3, "a graph for each chunk"


def test_what_is_captured_is_made_anew_once_when_rows_diverge(side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first divergence needs another graph; later ones only change the mask that this one reads."""
    chunks: list[Any] = []
    begin = Chunk.__init__

    def remember(self: Chunk, *args: Any) -> None:
        begin(self, *args)
        chunks.append(self)

    monkeypatch.setattr(Chunk, "__init__", remember)
    poll, masks = Chunk.poll, []

    def later(self: Chunk) -> bool:
        if len(masks) == 1:
            self.failed[0] = True  # as if this row had diverged between the first look and the second
        going = poll(self)
        masks.append(self.alive)
        return going

    monkeypatch.setattr(Chunk, "poll", later)
    population, calm = with_graphs(toy.Toy(), side), [Config(lr=lr) for lr in (0.03, 0.01, 0.1)]
    scores = population.train([*calm, WILD], SEEDS, STEPS)["valid"]
    assert [graph.replays for graph in Graph.captured] == [POLL - 3, STEPS - POLL - 3]
    assert masks[0] is masks[1] is masks[2]
    places = [graph.before.keys() for graph in Graph.captured]
    assert [masks[0].untyped_storage().data_ptr() in known for known in places] == [False, True]
    (chunk,) = chunks
    frozen = {name: p[0].clone() for name, p in chunk.params.items()}
    replayed = Replayed(chunk.advance, side, warmups=1)
    for inputs, targets in itertools.islice(population._batches(SEEDS, 3), 3):
        replayed(inputs, targets)
    assert all((chunk.params[name][0] == p).all() for name, p in frozen.items()), "a frozen row stays as it is"
    assert np.isnan(scores[3]).all()
    assert np.isnan(scores[0, 0])
    expected = Population(toy.Toy()).train(calm, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(scores[0, 1], expected[0, 1], rtol=1e-5)
    np.testing.assert_allclose(scores[1:3], expected[1:], rtol=1e-5)


@pytest.mark.parametrize("graphs", [False, True])
def test_a_chunk_leaves_with_its_training(graphs: bool, side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's memory must not wait for the garbage collector: the next chunk needs it."""
    gone, begin = [], Chunk.__init__

    def remember(self: Chunk, *args: Any) -> None:
        begin(self, *args)
        gone.append(weakref.ref(self))

    monkeypatch.setattr(Chunk, "__init__", remember)
    population = with_graphs(toy.Toy(), side) if graphs else Population(toy.Toy())
    gc.disable()
    try:
        population.train(CONFIGS, SEEDS, STEPS)
        assert gone
        assert not any(ref() for ref in gone)
    finally:
        gc.enable()


class Looking(toy.Toy):
    """With a loss that looks at a value in training, which vmap does not forbid where it is not a row's."""

    weights = torch.ones(2)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return super().loss(output, target) * (2 if int(self.weights.sum()) < 0 else 1)


def test_a_step_that_cannot_be_captured_is_said_to_be(side: Any) -> None:
    with pytest.raises(ConfigError, match=r"cannot be a CUDA graph \(.* stream is capturing\); train without graphs"):
        with_graphs(Looking(), side).train(CONFIGS, [0], STEPS)
    assert side.current == ["main"], "work goes on where it was"


def test_who_does_not_insist_trains_without_graphs(side: Any) -> None:
    """The step of the capture counts once; noise and rows that diverge are as ever."""
    population = with_graphs(Looking(), side, insist=False)
    with pytest.warns(UserWarning, match=r"cannot be a CUDA graph \(.* stream is capturing\); training without"):
        found = population.train([*CONFIGS, WILD], SEEDS, STEPS, curve=2)
    expected = Population(Looking()).train([*CONFIGS, WILD], SEEDS, STEPS, curve=2)
    for name in ("valid", "curve"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert not Graph.captured
    assert side.current == ["main"]


def test_inputs_of_another_shape_run_as_they_are(side: Any) -> None:
    """Nor are they stretched to that of the capture where broadcasting could."""
    total = torch.zeros(())
    replayed = Replayed(lambda x: total.add_(x.sum()), side, warmups=1)
    expected = 0
    for count in (3, 3, 3, 1, 5, 3):
        replayed(torch.ones(count))
        expected += count
        assert float(total) == expected
    assert [graph.replays for graph in Graph.captured] == [3]


class Ending(toy.Normalized):
    """With a loss that raises an error once, in the capture."""

    calls = 0

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode():
            raise ValueError("not like this")
        return super().loss(output, target)


def test_an_error_in_a_capture_leaves_running_statistics_alone(side: Any) -> None:
    """What has been captured has not happened: nothing may be put back from it."""
    population = with_graphs(Ending(), side, insist=False)
    with pytest.warns(UserWarning, match=r"cannot be a CUDA graph \(not like this\)"):
        found = population.train(CONFIGS, SEEDS, STEPS)["valid"]
    np.testing.assert_array_equal(found, Population(Ending()).train(CONFIGS, SEEDS, STEPS)["valid"])


class Pairs(toy.Toy):
    """Inputs of two parts."""

    def data(self) -> Any:
        return {name: ((x[:, :2], x[:, 2:]), y) for name, (x, y) in super().data().items()}

    def model(self) -> nn.Module:
        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = nn.Linear(4, 2)

            def forward(self, a: Tensor, b: Tensor) -> Tensor:
                return self.net(torch.cat([a, b], dim=-1))

        return Both()


def test_batches_of_several_parts_are_replayed(side: Any) -> None:
    found = with_graphs(Pairs(), side).train(CONFIGS, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(found, Population(Pairs()).train(CONFIGS, SEEDS, STEPS)["valid"], rtol=1e-6)
    assert Graph.captured


def test_a_lack_of_memory_in_a_capture_halves_the_chunk(side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = Chunk.advance

    def within_limits(self: Chunk, *args: Tensor) -> None:
        if self.rows > 2 and side.current[-1] == "side" and torch.utils._python_dispatch._get_current_dispatch_mode():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        advance(self, *args)

    monkeypatch.setattr(Chunk, "advance", within_limits)
    alike = [Config(lr=lr) for lr in (0.01, 0.02, 0.04)]
    expected = Population(toy.Toy()).train(alike, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(with_graphs(toy.Toy(), side).train(alike, SEEDS, STEPS)["valid"], expected, rtol=1e-5)


def test_graphs_need_a_gpu() -> None:
    words = "graphs is True, but task 'toy' is on cpu; CUDA graphs need a GPU."
    with pytest.raises(ConfigError, match=words):
        Population(toy.Toy(), graphs=True)


def test_a_lack_of_memory_is_known_by_what_it_led_to() -> None:
    """An error inside a capture ends it, and ending it raises another."""
    led_to = RuntimeError("operation failed due to a previous error during capture")
    led_to.__context__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert is_out_of_memory(led_to)
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))

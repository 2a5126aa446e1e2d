"""The population trainer: each row is the same training as the config on its own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from autoranger import Config
from autoranger.components.core.errors import ConfigError
from autoranger.components.kernel.cpp import kernel
from autoranger.components.presets import RANGER21
from autoranger.search.population import Population, chunk
from autoranger.search.population.chunk import Chunk, in_chunks
from autoranger.search.vectorization import batch_order, reseed
from tests import toy

pytestmark = pytest.mark.usefixtures("compiler")

CONFIGS = [
    *toy.CONFIGS,
    Config(lr=0.03, betas=(0.8, 0.95), components={"positive_negative_momentum": {}, "explore_exploit": {}}),
    Config(lr=0.3, components={"adaptive_gradient_clipping": {}, "gradient_centralization": {}}),
]
SEEDS = [3, 11]


def alone(task: toy.Toy, config: Config, seed: int, steps: int) -> float:
    """The same training as a user would write it, with the optimizer that the config builds."""
    inputs, targets = task.data()["train"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = task.model()
        optimizer = config.build([p for p in model.parameters() if p.requires_grad], total_steps=steps)
        for t, indices in enumerate(batch_order(len(inputs), task.batch_size, steps, seed)):
            reseed(torch.device("cpu"), seed * 1_000_003 + t)
            batch = task.augment(inputs[indices])
            reseed(torch.device("cpu"), t)
            optimizer.zero_grad()
            task.loss(model(batch), targets[indices]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad(), optimizer.evaluation():
        x, y = task.data()["valid"]
        return float(task.metric(model(x), y))


@pytest.mark.parametrize("kind", [toy.Toy, toy.Normalized, toy.Noisy, toy.TiedTask, toy.Frozen])
def test_a_row_is_the_training_of_its_config_alone(kind):
    task = kind()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no fallback to one-by-one training
        scores = Population(task).train(CONFIGS, SEEDS, 20)["valid"]
    expected = [[alone(task, config, seed, 20) for seed in SEEDS] for config in CONFIGS]
    np.testing.assert_allclose(scores, expected, rtol=2e-4)
    assert len(np.unique(scores)) == scores.size, "configs and seeds must differ from each other"


def test_a_model_that_vmap_refuses_trains_one_by_one_with_the_same_result():
    with pytest.warns(UserWarning, match="one by one"):
        refused = Population(toy.Refused())
    expected = Population(toy.Toy()).train(CONFIGS, SEEDS, 12)["valid"]
    np.testing.assert_allclose(refused.train(CONFIGS, SEEDS, 12)["valid"], expected, rtol=1e-4)


def test_results_do_not_depend_on_the_chunks():
    expected = Population(toy.Toy(), rows=1000).train(CONFIGS, SEEDS, 12)["valid"]
    for rows in (1, 4, 6):
        np.testing.assert_allclose(
            Population(toy.Toy(), rows=rows).train(CONFIGS, SEEDS, 12)["valid"], expected, rtol=1e-4
        )


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", [toy.Normalized, toy.Noisy, toy.Refused])
@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses")
def test_workers_side_by_side_change_nothing(kind, two_threads):
    population = Population(kind(), rows=2)
    side_by_side = population.train(CONFIGS, SEEDS, 20, curve=2)
    torch.set_num_threads(1)
    alone = population.train(CONFIGS, SEEDS, 20, curve=2)
    assert all((side_by_side[name] == alone[name]).all() for name in ("valid", "curve"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_stops_all_workers(error, two_threads):
    def fail(configs, scores):
        raise error

    done = []
    with pytest.raises(error):
        Population(toy.Toy(), rows=2).train(CONFIGS * 8, SEEDS, 400, progress=done.append, report=fail)
    assert sum(done) < len(CONFIGS) * 8 * len(SEEDS) * 400 / 2
    assert torch.get_num_threads() == 2


def test_a_diverging_row_fails_alone():
    wild = Config(lr=1e38)
    population = Population(toy.Toy())
    calm = population.train(CONFIGS, SEEDS, 30)["valid"]
    scores = population.train([CONFIGS[0], wild, *CONFIGS[1:]], SEEDS, 30)["valid"]
    assert np.isnan(scores[1]).all()
    np.testing.assert_allclose(np.delete(scores, 1, axis=0), calm, rtol=1e-4)
    assert np.isnan(population.train([wild], SEEDS, 30)["valid"]).all(), "also where no row is left"


def test_the_same_seeds_give_the_same_bits_and_others_do_not():
    population = Population(toy.Toy())
    first, again = (population.train(CONFIGS, SEEDS, 12)["valid"] for _ in range(2))
    assert (first == again).all()
    assert (population.train(CONFIGS, [4, 12], 12)["valid"] != first).all()


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Population(toy.Noisy()).train(CONFIGS[:1], [0], 3)
    assert (torch.rand(3) == expected).all()


def test_progress_adds_up_and_reports_cover_everything():
    done, reported = [], []
    Population(toy.Toy(), rows=4).train(
        CONFIGS, SEEDS, 13, progress=done.append, report=lambda configs, scores: reported.extend(configs)
    )
    assert sum(done) == len(CONFIGS) * len(SEEDS) * 13
    assert sorted(map(hash, reported)) == sorted(map(hash, CONFIGS))


def test_alike_candidates_share_chunks():
    subsets = [Config(components={name: {} for name in chosen}) for chosen in (RANGER21, (), RANGER21[:3], ()) * 8]
    chunks = list(in_chunks(subsets, 8))
    assert sorted(k for chunk in chunks for k in chunk) == list(range(len(subsets)))
    assert all(len(chunk) <= 8 for chunk in chunks)
    plain = [chunk for chunk in chunks if any(not subsets[k].components for k in chunk)]
    assert all(not subsets[k].components for chunk in plain for k in chunk), "no plain candidate pays for others"


def test_batches_are_shuffled_epochs():
    order = batch_order(10, 5, 6, seed=1)
    assert order.shape == (6, 5)
    for epoch in order.view(3, 10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert (batch_order(10, 5, 6, seed=2) != order).any()


class Wrong(toy.Toy):
    def loss(self, output, target):
        return output[:, 5]


class PerExample(toy.Toy):
    def loss(self, output, target):
        return output[:, 0]


@pytest.mark.parametrize(("kind", "words"), [(Wrong, "fails on a batch"), (PerExample, "must return a scalar")])
def test_a_task_that_is_wrong_by_itself_is_said_to_be(kind, words):
    with pytest.raises(ConfigError, match=words):
        Population(kind())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_chunk_that_does_not_fit_is_halved(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as it takes; the results are the same, and the progress tells of each step once."""
    population, counted = Population(toy.Toy()), []
    expected = population.train(CONFIGS, SEEDS, 8)["valid"]
    advance = Chunk.advance

    def within_limits(self: Chunk, *args: object) -> None:
        if self.rows > 4:
            raise error
        advance(self, *args)

    monkeypatch.setattr(Chunk, "advance", within_limits)
    found = population.train(CONFIGS, SEEDS, 8, progress=counted.append)["valid"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert sum(counted) == len(CONFIGS) * len(SEEDS) * 8


def test_what_never_fits_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(self: Chunk, *args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Chunk, "advance", too_much)
    with pytest.raises(ConfigError, match="does not fit into the memory of cpu; make model or batch smaller"):
        Population(toy.Toy()).train(CONFIGS, SEEDS, 2)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Chunk, *args: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(Chunk, "advance", broken)
    with pytest.raises(RuntimeError, match="something else"):
        Population(toy.Toy()).train(CONFIGS, SEEDS, 2)


def test_short_trainings_of_many_sets_of_components_share_a_compiled_step(monkeypatch):
    """Each batch of a sampler's proposals has other sets; what comes out is the same as with steps of their own."""
    names = ("gradient_centralization", "nesterov", "lookahead")
    monkeypatch.setattr(chunk, "MODERN", names)
    batches = [[Config(lr=0.03, components=dict.fromkeys(own, True))] for own in (names[:2], names[1:], names)]
    sources: list[str] = []
    build = kernel.build
    monkeypatch.setattr(kernel, "build", lambda source: sources.append(source) or build(source))
    population = Population(toy.Toy())
    shared = [population.train(configs, SEEDS, 12)["valid"] for configs in batches]
    assert len(sources) == 3
    assert len(set(sources)) == 1
    monkeypatch.setattr(chunk, "COMPILED_ALONE", 0)
    alone = [population.train(configs, SEEDS, 12)["valid"] for configs in batches]
    assert len(set(sources)) == 4
    np.testing.assert_allclose(shared, alone, rtol=1e-4)

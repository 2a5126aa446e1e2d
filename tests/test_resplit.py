"""`Task.resplit`: each seed trains and validates on a division of its own of the same examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from autoranger.components.core.errors import ConfigError
from autoranger.search.population import Population
from autoranger.search.population.division import division
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from autoranger.search.tasks import create
from autoranger.search.tasks.task import Task, averages
from autoranger.search.vectorization import batch_order, reseed
from tests import toy
from tests.toy import CONFIGS, SEEDS

STEPS = 20


class Divided(toy.Toy):
    resplit = True


class Averaged(Divided):
    """With a metric that is a mean over examples, which is computed piece by piece."""

    @averages
    def metric(self, output, target):
        return -torch.nn.functional.cross_entropy(output, target)


class Outside(Divided):
    """With a metric that vmap cannot compute."""

    def metric(self, output, target):
        return float(roc_auc_score(target.numpy(), output[:, 1].numpy()))


class Masked(Divided):
    """With a loss whose shapes depend on the batch, so that seeds are called one after another."""

    def loss(self, output, target):
        return super().loss(output[target >= 0], target[target >= 0])


class Normalized(Divided, toy.Normalized):
    pass


class Refused(Divided, toy.Refused):
    pass


class Named(Averaged):
    """With a dictionary of inputs."""

    def data(self):
        return {part: ({"x": x}, y) for part, (x, y) in super().data().items()}

    def model(self):
        return Whole(super().model())


class Whole(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


KINDS = [Divided, Averaged, Outside, Masked, Normalized, Refused, Named]


def alone(task: Task, config, seed: int) -> list[float]:
    """A training as a user would write it: its score on what this seed left out, and on the test data."""
    parts = task.data()
    x, y = (torch.cat(both) for both in zip(*(bare(parts[name]) for name in ("train", "valid")), strict=True))
    fitting, held = division(y, len(parts["valid"][1]), seed)
    assert sorted([*fitting.tolist(), *held.tolist()]) == list(range(len(y)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = task.model()
        optimizer = config.build([p for p in model.parameters() if p.requires_grad], total_steps=STEPS)
        for t, batch in enumerate(batch_order(len(fitting), task.batch_size, STEPS, seed)):
            reseed(torch.device("cpu"), t)
            optimizer.zero_grad()
            inputs = x[fitting[batch]]
            task.loss(model(inputs), y[fitting[batch]]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad(), optimizer.evaluation():
        return [float(task.metric(model(a), b)) for a, b in ((x[held], y[held]), bare(parts["test"]))]


def bare(split):
    """Inputs without their name."""
    return (split[0]["x"] if isinstance(split[0], dict) else split[0]), split[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses", "ignore:.*its metric uses more than torch")
def test_a_row_is_the_training_of_its_config_on_the_division_of_its_seed(kind):
    task = kind()
    found = Population(task).train(CONFIGS, SEEDS, STEPS, splits=("valid", "test"), curve=2)
    expected = np.array([[alone(task, config, seed) for seed in SEEDS] for config in CONFIGS])
    np.testing.assert_allclose(found["valid"], expected[..., 0], rtol=2e-4)
    np.testing.assert_allclose(found["test"], expected[..., 1], rtol=2e-4)
    np.testing.assert_array_equal(found["curve"][..., -1], found["valid"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses", "ignore:.*its metric uses more than torch")
def test_the_company_changes_nothing(kind):
    together = Population(kind()).train(CONFIGS, SEEDS, STEPS)["valid"]
    apart = [[Population(kind(), rows=1).train([c], [seed], STEPS)["valid"][0, 0] for seed in SEEDS] for c in CONFIGS]
    np.testing.assert_allclose(together, apart, rtol=1e-4)


def test_outputs_that_vmap_refuses_are_scored_one_by_one_with_the_same_result():
    expected, population = Population(Divided()).train(CONFIGS, SEEDS, STEPS)["valid"], Population(Divided())
    population.ways.outputs = False
    np.testing.assert_allclose(population.train(CONFIGS, SEEDS, STEPS)["valid"], expected, rtol=1e-5)


LABELS = torch.tensor([0] * 40 + [1] * 25 + [2] * 7)


@pytest.mark.parametrize("valid", [24, 50, 1, 71])
@pytest.mark.parametrize("targets", [LABELS, torch.linspace(-1, 1, 72), torch.zeros(72, 3), {"a": LABELS, "b": LABELS}])
def test_every_seed_has_another_division_of_the_same_sizes(targets, valid):
    every = [division(targets, valid, seed) for seed in range(1200)]
    assert all(sorted([*train.tolist(), *held.tolist()]) == list(range(72)) for train, held in every[:20])
    assert {len(held) for _, held in every} == {valid}
    again = division(targets, valid, 3)
    assert all(torch.equal(a, b) for a, b in zip(again, every[3], strict=True))
    assert len({tuple(held.sort().values.tolist()) for _, held in every}) > (900 if 1 < valid < 71 else 60)
    often = torch.zeros(72)
    for _, held in every:
        often[held] += 1
    share = valid / 72
    assert (often / 1200 - share).abs().max() < 4.5 * (share * (1 - share) / 1200) ** 0.5, "all alike"


@pytest.mark.parametrize("valid", [24, 50])
def test_every_class_has_its_share(valid):
    for seed in range(200):
        _, held = division(LABELS, valid, seed)
        for label, count in zip(*LABELS.unique(return_counts=True), strict=True):
            assert abs((LABELS[held] == label).sum() - count * valid / 72) < 2


def test_every_part_of_a_distribution_has_its_share():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    means = [values[division(values, 100, seed)[1]].mean() for seed in range(200)]
    expected = values.std() * (1 / 100 - 1 / 400) ** 0.5
    assert torch.stack(means).std() < expected / 3, "than of those that are drawn without regard to it"
    assert abs(torch.stack(means).mean() - values.mean()) < 0.01


def test_data_are_held_once():
    population = Population(Divided())
    assert population.data["train"][0].data_ptr() == population.pool[0].data_ptr()
    assert [len(population.data[name][1]) for name in ("train", "valid", "test")] == [48, 24, 24]


def test_the_small_shipped_tasks_are_divided_anew():
    assert {name: create(name, "cpu", None).resplit for name in ("digits", "diabetes")} == {
        "digits": True,
        "diabetes": True,
    }
    assert not Task.resplit, "examples of a user may depend on each other"


def test_a_division_does_not_draw_what_the_order_of_the_batches_draws(monkeypatch):
    found = [division(torch.zeros(72, 3), 24, seed)[1] for seed in range(5)]
    monkeypatch.setattr("autoranger.search.population.division.OFFSET", 0)
    for seed, held in enumerate(found):
        assert not torch.equal(held.sort().values, division(torch.zeros(72, 3), 24, seed)[1].sort().values)


@pytest.mark.filterwarnings("ignore:.*its metric uses more than torch", "ignore:Only one class is present")
def test_a_class_that_is_too_rare_for_divisions_is_found_before_the_search():
    class Rare(Outside):
        def data(self):
            parts = super().data()
            for name, (_, y) in parts.items():
                y[:] = 0
                y[: {"train": 1, "valid": 1, "test": 2}[name]] = 1
            return parts

    with pytest.raises(ConfigError, match="on some random divisions of the data its metric"):
        Population(Rare())
    Rare.resplit = False
    Population(Rare())


def test_parts_of_different_types_are_refused():
    class Mixed(Divided):
        def data(self):
            parts = super().data()
            return parts | {"valid": (parts["valid"][0], parts["valid"][1].float())}

    with pytest.raises(ConfigError, match="their types differ"):
        Population(Mixed())


def test_parts_of_different_shapes_are_refused():
    class Longer(Divided):
        def data(self):
            parts = super().data()
            return parts | {"valid": (parts["valid"][0][:, :3], parts["valid"][1])}

    class Elsewhere(Divided):
        def data(self):
            parts = super().data()
            return parts | {"valid": ({"x": parts["valid"][0]}, parts["valid"][1])}

    for kind in (Longer, Elsewhere):
        with pytest.raises(ConfigError, match=r"resplit is True, but its train and valid splits differ in form"):
            Population(kind())


def test_resplit_is_yes_or_no():
    class Often(toy.Toy):
        resplit = 5

    with pytest.raises(ConfigError, match="resplit is 5, but must be True or False"):
        Population(Often())


@pytest.mark.parametrize(("kind", "shared"), [(toy.Toy, 24), (Divided, None)])
def test_the_evidence_says_whether_all_seeds_share_the_validation_data(kind, shared, tmp_path):
    plan = Plan(2, (Rung(6, 1, 2, 1),), 4, 12)
    outcome = search(kind(), open_storage(str(tmp_path / "j")), "s", space=["lookahead"], plan=plan)
    assert outcome.evidence.comparison.shared == shared
    assert ("shared" in outcome.evidence.to_dict()["comparison"]) == (shared is not None)

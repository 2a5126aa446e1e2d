"""Tasks as people write them: models, losses, metrics and data of every ordinary form, and mistakes in them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

import autoranger
from autoranger import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.clock import Clock
from autoranger.search.population import Population
from autoranger.search.population.data import PARTS
from autoranger.search.progress import Progress
from autoranger.search.race.objectives import with_objective
from autoranger.search.race.race import Race
from autoranger.search.space import Space
from autoranger.search.storage.record import Record
from autoranger.search.tasks import create
from autoranger.search.tasks.task import Task
from autoranger.search.vectorization import batch_order, drawn, forked, reseed, seedwise, vectorized
from tests import toy

CONFIGS = toy.CONFIGS
SEEDS = [3, 11]
STEPS = 10


def alone(task: Task, config: Config, seed: int, steps: int = STEPS) -> float:
    """The training as a user would write it: torch's own loop, one model, the optimizer that the config builds."""
    cpu = torch.device("cpu")
    with forked(cpu):
        reseed(cpu, seed)
        model = task.model()
        inputs, targets = task.data()["train"]
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = config.build(trained, total_steps=steps)
        for t, indices in enumerate(batch_order(len(targets), task.batch_size, steps, seed)):
            reseed(cpu, t)
            optimizer.zero_grad()
            task.loss(model(inputs[indices].clone()), targets[indices].clone()).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            x, y = task.data()["valid"]
            reseed(cpu, 0)
            return float(task.metric(model(x.clone()), y.clone()))


class Layers(nn.Module):
    """4 → 6 → 2, for models that do something unusual between the two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


class Unused(Layers):
    """With parameters that no loss depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(3, 3)


class SometimesUsed(Layers):
    """With parameters on which some losses depend, by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return self.last(self.other(h) if random.random() < 0.5 else h)


class Checkpointed(Layers):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(lambda t: torch.tanh(self.first(t)), x, use_reentrant=False))


class Running(Layers):
    """With a statistic that it updates and uses in one forward pass, in place or by assignment."""

    in_place = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.training:
            new = 0.9 * self.scale + 0.1 * h.detach().std(0)
            if float(new.sum()) < 0:  # which vmap refuses
                return h
            self.scale = self.scale.copy_(new) if self.in_place else new
        return self.last(h / self.scale)


class Assigned(Running):
    in_place = False

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * h.detach().std(0)
        return self.last(h / self.scale)


class Counting(Layers):
    """Whose output depends on how often it has been called."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) / (1 + 0.1 * self.calls)


class Clamped(Layers):
    """That changes its own weights, by assignment to `data`."""

    def forward(self, x: Tensor) -> Tensor:
        self.first.weight.data = F.normalize(self.first.weight.data, dim=1)
        return super().forward(x)


class InPlace(Layers):
    """That changes its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


class NumPyNoise(Layers):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + float(np.random.randn()) + random.random())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.last = nn.LSTM(1, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cells(x[..., None])[0][:, -1])


class NumPyWeights(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.first.weight.data.copy_(torch.from_numpy(np.random.randn(6, 4)))


MODELS = [Unused, SometimesUsed, Checkpointed, Running, Assigned, Counting, Clamped, InPlace, NumPyNoise, Recurrent]


def with_model(kind: Callable[[], nn.Module], **members: Any) -> toy.Toy:
    return type("Mine", (toy.Toy,), {"model": lambda self: kind(), **members})()


@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses")
@pytest.mark.parametrize("kind", [*MODELS, NumPyWeights])
def test_an_unusual_model_trains_as_in_a_loop_of_its_own(kind: Callable[[], nn.Module]) -> None:
    task = with_model(kind)
    # A weight that is changed before the first step is not what Lookahead of a population starts from.
    configs = CONFIGS[1:2] if kind is Clamped else CONFIGS
    scores = Population(task).train(configs, SEEDS, STEPS)["valid"]
    expected = [[alone(task, config, seed) for seed in SEEDS] for config in configs]
    np.testing.assert_allclose(scores, expected, rtol=5e-4)


# Losses


class Masked(toy.Toy):
    """With labels that are left out, a different number in each batch."""

    def data(self) -> Any:
        hidden = torch.rand(96, generator=torch.Generator().manual_seed(1)) < 0.4
        parts = super().data()
        masks = dict(zip(parts, hidden.split([48, 24, 24]), strict=True))
        return {name: (x, torch.where(masks[name], -100, y)) for name, (x, y) in parts.items()}

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output[target != -100], target[target != -100])

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        return -self.loss(output, target)


class Penalized(toy.Toy):
    """With a penalty on the weights of the model that it has made, through the module or the parameters themselves."""

    through_module = True

    def model(self) -> nn.Module:
        self.net = super().model()
        self.weights = list(self.net.parameters())
        return self.net

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        weights = self.net.parameters() if self.through_module else self.weights
        return super().loss(output, target) + 0.3 * sum(p.abs().sum() for p in weights)


class PenalizedDirectly(Penalized):
    through_module = False


@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses")
@pytest.mark.parametrize(("kind", "way"), [(Masked, seedwise), (Penalized, vectorized), (PenalizedDirectly, None)])
def test_an_unusual_loss_is_what_it_is_alone(kind: type[toy.Toy], way: object) -> None:
    population = Population(kind())
    assert population.ways.training is way
    scores = population.train(CONFIGS, SEEDS, STEPS)["valid"]
    expected = [[alone(kind(), config, seed) for seed in SEEDS] for config in CONFIGS]
    np.testing.assert_allclose(scores, expected, rtol=5e-4)


def test_the_objective_loss_knows_the_weights_too() -> None:
    task, trained_for = with_objective(Penalized(), "loss")
    value = trained_for(Population(task)).train(CONFIGS[:1], [3], STEPS)["valid"][0, 0]
    mine = Penalized()
    mine.metric = lambda output, target: -mine.loss(output, target)
    assert value == pytest.approx(alone(mine, CONFIGS[0], 3), rel=1e-4)


def test_weights_of_a_loss_that_nobody_trains_are_said() -> None:
    task = toy.Toy()
    task.temperature = nn.Parameter(torch.ones(()))
    task.loss = lambda output, target: F.cross_entropy(output * task.temperature, target)
    with pytest.warns(UserWarning, match=r"depends on a parameter \[\] that is not the model's"):
        Population(task)


class Fragile(toy.Toy):
    """Whose loss raises an error where an output is large, as `nn.BCELoss` does for one that is no probability."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        outside = 2.0 * (output.detach().abs().amax(-1) > 50)
        return F.binary_cross_entropy(output.softmax(-1)[:, 1] + outside, target.float())


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses")
def test_a_candidate_whose_loss_raises_fails_alone_with_its_reason(refused: bool) -> None:
    kind = type("Kind", (Fragile, toy.Refused), {}) if refused else Fragile
    population = Population(kind())
    calm = population.train(CONFIGS, SEEDS, 30)["valid"]
    found = population.train([CONFIGS[0], toy.WILD, *CONFIGS[1:]], SEEDS, 30)["valid"]
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(np.delete(found, 1, axis=0), calm, rtol=1e-4)
    assert "RuntimeError" in population.failures[toy.WILD] or "diverged" in population.failures[toy.WILD]
    assert population.failures.keys() == {toy.WILD}


def test_a_batch_that_nobody_can_train_on_is_the_tasks_fault() -> None:
    step, labels = 40, toy.Toy().data()["train"][1]
    unlucky = labels[batch_order(48, 8, step, 5)[step - 1]]

    class Bad(toy.Toy):
        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            if torch.equal(target, unlucky):
                raise ValueError("nothing to compare")
            return super().loss(output, target)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ConfigError, match=rf"of step {step}, before any training, too \(ValueError: nothing to"):
            Population(Bad()).train(CONFIGS, [5], 60)


@pytest.mark.parametrize("calls", [0, 6])
def test_what_vmap_refuses_late_is_trained_anew_and_said_once(calls: int) -> None:
    class Late(toy.Toy):
        calls = 0

        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            self.calls += 1
            loss = super().loss(output, target)
            return loss if self.calls <= calls or loss.item() else loss * 0

    done: list[int] = []
    with pytest.warns(UserWarning, match="refuses this model or loss .*, so it trains one by one") as caught:
        scores = Population(Late()).train(CONFIGS, SEEDS, STEPS, progress=done.append)["valid"]
    assert len([w for w in caught if "one by one" in str(w.message)]) == 1
    assert sum(done) == len(CONFIGS) * len(SEEDS) * STEPS
    np.testing.assert_allclose(scores, Population(toy.Toy()).train(CONFIGS, SEEDS, STEPS)["valid"], rtol=1e-4)


def test_a_loss_may_be_assigned_and_take_gradients_itself() -> None:
    """And accuracy of two classes is no comparison of all with all."""

    class Own(toy.Toy):
        def __init__(self) -> None:
            super().__init__()
            self.entropy = nn.CrossEntropyLoss()
            self.loss = self.smooth
            self.metric = lambda output, target: (output.argmax(-1) == target).float().mean()

        def smooth(self, output: Tensor, target: Tensor) -> Tensor:
            loss = self.entropy(output, target)
            (slope,) = torch.autograd.grad(loss, output, create_graph=True)
            return loss + slope.square().sum()

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*compares")
        assert np.isfinite(Population(Own()).train(CONFIGS, SEEDS, STEPS)["valid"]).all()


def test_a_trial_says_why_its_candidate_has_failed() -> None:
    space, config = Space(), replace(Space().default, lr=0.1)
    record = Record(InMemoryStorage(), "s", space, {}, resume=False)
    population = Population(Fragile())
    wild = replace(config, lr=1e2)
    race = Race(population, record, {}, Clock(None, Progress()))
    race.train([(config, 0.1), (config, 1e2)], STEPS, SEEDS, {})
    record.close()
    fine, failed = sorted(record.study.trials, key=lambda trial: trial.params["lr"])
    assert (fine.state, failed.state) == (TrialState.PRUNED, TrialState.FAIL)
    assert "failed" not in fine.user_attrs
    assert failed.user_attrs["failed"] == population.failures[wild]


# Metrics


def f1(output: Tensor, target: Tensor) -> Tensor:
    said = output.argmax(-1)
    return 2 * ((said == 1) & (target == 1)).sum() / ((said == 1).sum() + (target == 1).sum()).clamp(min=1)


def sk_f1(output: Tensor, target: Tensor) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(target.numpy(), output.argmax(-1).numpy()))


METRICS = {
    "f1": f1,
    "sklearn": sk_f1,
    "item": lambda output, target: (output.argmax(-1) == target).float().mean().item(),
    "numpy": lambda output, target: np.mean(output.argmax(-1).numpy() == target.numpy()),
    "count": lambda output, target: (output.argmax(-1) == target).sum(),
    "one": lambda output, target: -F.cross_entropy(output, target)[None],
    "changes its targets": lambda output, target: -F.cross_entropy(output, target.mul_(0)),
}


@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses", "ignore:.*its metric uses more than torch")
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_sees_the_whole_split_of_one_candidate(name: str) -> None:
    task = type("Mine", (toy.Toy,), {"metric": lambda self, output, target: METRICS[name](output, target)})()
    task.batch_size = 3  # so that a split is more than one piece
    population = Population(task)
    scores = population.train(CONFIGS, SEEDS, STEPS)["valid"]
    expected = [[alone(task, config, seed) for seed in SEEDS] for config in CONFIGS]
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    among = population.train([*CONFIGS, *CONFIGS[:1] * 20], SEEDS, STEPS)["valid"][: len(CONFIGS)]
    np.testing.assert_allclose(among, scores, rtol=1e-4)


def test_outputs_are_computed_for_few_rows_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Population(toy.Toy()).train(CONFIGS, SEEDS, STEPS)["valid"]
    monkeypatch.setattr("autoranger.search.population.score.OUTPUT_BYTES", 500)
    np.testing.assert_allclose(Population(toy.Toy()).train(CONFIGS, SEEDS, STEPS)["valid"], expected, rtol=1e-5)


# Data

X, Y = toy.Toy().data()["train"]


def same(change: Callable[[Tensor, Tensor], Any]) -> toy.Toy:
    """The toy with its data in another form."""

    def data(self: toy.Toy) -> Any:
        return {name: change(x, y) for name, (x, y) in toy.Toy().data().items()}

    return type("Mine", (toy.Toy,), {"data": data})()


FORMS = {
    "arrays": lambda x, y: (x.double().numpy(), y.numpy().astype(np.int32)),
    "unsigned": lambda x, y: (x.numpy().astype(">f8"), y.numpy().astype(np.uint16)),
    "lists": lambda x, y: (x.tolist(), y.tolist()),
    "lists of tensors": lambda x, y: [list(x), list(y)],
    "bytes": lambda x, y: (x, y.to(torch.uint8)),
    "data set": TensorDataset,
    "examples": lambda x, y: list(zip(x, y, strict=True)),
    "sparse": lambda x, y: (x.to_sparse(), y),
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True),
    "not writable": lambda x, y: (np.broadcast_to(x.numpy(), x.shape), y),
    "with history": lambda x, y: (x.clone().requires_grad_() * 1, y),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_have_any_ordinary_form(form: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Population(same(FORMS[form])).train(CONFIGS, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(found, Population(toy.Toy()).train(CONFIGS, SEEDS, STEPS)["valid"], rtol=1e-5)


def test_a_memory_map_stays_on_disk(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    task = same(lambda x, y: (mapped[: len(x)], y))
    population = Population(task)
    assert population.data["train"][0].data_ptr() == mapped.ctypes.data
    assert np.isfinite(population.train(CONFIGS, SEEDS, STEPS)["valid"]).all()


class Two(Layers):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return super().forward(torch.cat([left, right], dim=-1))


class Batch(Layers):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(torch.cat([batch["left"], batch["right"]], dim=-1))


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (Two, lambda x, y: ((x[:, :1], x[:, 1:]), y)),
        (Two, lambda x, y: (x[:, :1], x[:, 1:], y)),
        (Two, lambda x, y: ({"right": x[:, 1:], "left": x[:, :1]}, y)),
        (Batch, lambda x, y: ({"right": x[:, 1:], "left": x[:, :1]}, y)),
    ],
)
def test_several_inputs_are_arguments(kind: type[nn.Module], form: Callable[..., Any]) -> None:
    task = same(form)
    type(task).model = lambda self: kind()
    expected = Population(with_model(Layers)).train(CONFIGS, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(Population(task).train(CONFIGS, SEEDS, STEPS)["valid"], expected, rtol=1e-4)


def test_what_augment_returns_is_what_is_trained_on() -> None:
    """Its type and size, whatever the data's are."""

    class Images(toy.Toy):
        def data(self) -> Any:
            return {name: ((100 * x).abs().to(torch.uint8), y) for name, (x, y) in super().data().items()}

        def augment(self, inputs: Tensor) -> Any:
            return inputs.numpy()[:, :3] / 255

        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(3, 2))

        def metric(self, output: Tensor, target: Tensor) -> Tensor:
            return -F.cross_entropy(output, target)

    task = Images()
    model = task.model
    task.model = lambda: nn.Sequential(Cut(), model())
    batch, _ = next(Population(task)._batches([0], 1))
    assert batch.shape == (1, 8, 3)
    assert batch.dtype == torch.float32
    assert 0 < batch.max() < 1.0


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., :3].float()


# Mistakes


def labelled(part: str, label: float) -> Callable[[Any], Any]:
    """The toy's data with one other label."""

    def data(self: toy.Toy) -> Any:
        parts = toy.Toy().data()
        x, y = parts[part]
        y = y.clone()
        y[7] = label
        return parts | {part: (x, y)}

    return data


def spoiled(part: str) -> Callable[[Any], Any]:
    """The toy's data with one number that is none."""

    def data(self: toy.Toy) -> Any:
        parts = toy.Toy().data()
        x, y = parts[part]
        x = x.clone()
        x[9, 1] = torch.nan
        return parts | {part: (x, y)}

    return data


def form(change: Callable[[Tensor, Tensor], Any]) -> Callable[[Any], Any]:
    return lambda self: {name: change(x, y) for name, (x, y) in toy.Toy().data().items()}


MEAN_SQUARE = {
    "data": form(lambda x, y: (x, x[:, 0])),
    "model": lambda self: nn.Linear(4, 1),
    "loss": lambda self, output, target: (output - target).square().mean(),
    "metric": lambda self, output, target: -(output[:, 0] - target).square().mean(),
}
ALWAYS = nn.Linear(4, 2)
OWN = {"loss": lambda self, output, target: F.cross_entropy(output, target)}

MISTAKES = {
    "no splits": ({"data": lambda self: 3}, "data is a int; return a dict of train, valid and test splits"),
    "an error in data": (
        {"data": lambda self: {}["x"]},
        r"its data cannot be made \(KeyError: 'x', at test_user_tasks",
    ),
    "one tensor": ({"data": form(lambda x, y: x)}, r"train is a Tensor; return \(inputs, targets\)"),
    "text": ({"data": form(lambda x, y: (x, ["a"] * len(y)))}, "targets is a list of <U1; turn it into"),
    "ragged": ({"data": form(lambda x, y: ([[1.0] * (i % 3) for i in range(len(x))], y))}, "pad them to one length"),
    "lengths": ({"data": form(lambda x, y: (x, y[1:]))}, "train has 48 inputs and 47 targets"),
    "empty": ({"data": form(lambda x, y: (x[:0], y[:0]))}, "train is empty"),
    "masked": ({"data": form(lambda x, y: (np.ma.masked_array(x.numpy()), y))}, "a mask would be lost"),
    "a label too high": (
        {"data": labelled("train", 5)},
        r"label 5 at train\[7\] is not one of the model's 2 classes",
    ),
    "a padding label": ({"data": labelled("valid", -100)}, r"label -100 at valid\[7\] is not one of"),
    "a padding label, own loss": (
        {"data": labelled("train", -100), "metric": Task.metric} | OWN,
        "override metric to leave",
    ),
    "a label in test": (
        {"data": labelled("test", 5), "metric": lambda self, o, y: -F.cross_entropy(o, y)} | OWN,
        "fails on .* test split",
    ),
    "a column of labels": ({"data": form(lambda x, y: (x, y[:, None]))}, r"targets \[8, 1\]; reshape them"),
    "labels with a point": ({"data": form(lambda x, y: (x, y.float()))}, "integer labels"),
    "NaN in train": ({"data": spoiled("train")}, r"train\[9\] contains NaN or infinity"),
    "NaN in valid": ({"data": spoiled("valid")}, r"valid\[9\] contains NaN or infinity"),
    "a broadcast loss": (MEAN_SQUARE, r"loss compares every output with every target.*\[24, 1\] and targets \[24\]"),
    "default accuracy": (
        MEAN_SQUARE | {"metric": Task.metric, "loss": lambda self, o, y: (o[:, 0] - y).square().mean()},
        "its metric is the default, accuracy",
    ),
    "a broadcast metric": (
        {
            "data": form(lambda x, y: (x, y[:, None])),
            "loss": lambda self, o, y: F.cross_entropy(o, y[:, 0]),
            "metric": lambda self, o, y: (o.argmax(-1) == y).float().mean(),
        },
        "metric compares every output with every target",
    ),
    "NaN from the beginning": ({"loss": lambda self, o, y: o.sum() * torch.nan}, "its loss is nan before any training"),
    "no batch": ({"batch_size": 0}, "batch_size is 0, but must be a whole number from 1"),
    "half a step": ({"steps": 0.5}, "steps is 0.5, but must be a whole number"),
    "one rate": ({"lr_range": 1e-3}, "lr_range is 0.001, but must be the lowest and the highest"),
    "no gradient": ({"loss": lambda self, o, y: F.cross_entropy(o, y).detach()}, "its loss has no gradient"),
    "a number for a loss": ({"loss": lambda self, o, y: 1.0}, "loss must return a scalar"),
    "many values": ({"metric": lambda self, o, y: (o.argmax(-1) == y).float()}, "metric must return one number"),
    "an error in the metric": ({"metric": lambda self, o, y: o["x"]}, "its model or metric fails on the valid split"),
    "no module": ({"model": lambda self: None}, "its model is a NoneType; return a new nn.Module"),
    "always one module": ({"model": lambda self: ALWAYS}, "model returns the same module again"),
    "lazy": ({"model": lambda self: nn.LazyLinear(2)}, "has lazy layers; call it once"),
    "a batch of one": (
        {"batch_size": 1, "model": lambda self: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))},
        r"fails on a batch of 1 \(ValueError: Expected more than 1 value",
    ),
    "augment": ({"augment": lambda self, x: x["x"]}, "its augment fails on a batch"),
    "shapes by chance": (
        {"augment": lambda self, x: x[:, : int(torch.randint(1, 5, ()))]},
        "augment returns batches of different shapes",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.filterwarnings("ignore")
def test_a_mistake_is_one_sentence_before_anything_is_trained(name: str) -> None:
    members, words = MISTAKES[name]
    with pytest.raises(ConfigError, match=words) as caught:
        Population(type("Mine", (toy.Toy,), members)())
    assert "\n" not in str(caught.value)


def test_a_model_that_copes_with_missing_numbers_may_have_them() -> None:
    class Filled(Layers):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.nan_to_num(0))

    task = with_model(Filled, data=spoiled("train"))
    assert np.isfinite(Population(task).train(CONFIGS, SEEDS, STEPS)["valid"]).all()


# Seeds


def test_what_numpy_and_python_draw_depends_on_the_seed_alone() -> None:
    class Drawn(toy.Toy):
        def data(self) -> Any:
            order = torch.from_numpy(np.random.permutation(96))
            x, y = (torch.cat(part)[order] for part in zip(*super().data().values(), strict=True))
            return {"train": (x[:48], y[:48]), "valid": (x[48:72], y[48:72]), "test": (x[72:], y[72:])}

        def model(self) -> nn.Module:
            return NumPyWeights()

        def augment(self, inputs: Tensor) -> Any:
            return inputs + random.gauss(0, 1) + np.random.randn(*inputs.shape)

    random.seed(1)
    np.random.seed(1)
    before = drawn()
    first = Population(Drawn()).train(CONFIGS, SEEDS, STEPS)["valid"]
    assert drawn() == before, "the user's own generators stand where they stood"
    random.seed(2)
    np.random.seed(2)
    again = Population(Drawn(), rows=2).train(CONFIGS[::-1], SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(again[::-1], first, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses")
def test_a_generator_of_its_own_is_said() -> None:
    class Own(toy.Toy):
        def augment(self, inputs: Tensor) -> Any:
            return inputs + np.random.default_rng().normal(size=inputs.shape)

    with pytest.warns(UserWarning, match="augment gives different results for the same seed"):
        Population(Own())
    generator = torch.Generator().manual_seed(0)
    with pytest.warns(UserWarning, match="model gives different results for the same seed"):
        Population(with_model(Layers, model=lambda self: noisy_layers(generator)))


def noisy_layers(generator: torch.Generator) -> nn.Module:
    model = Layers()
    nn.init.normal_(model.first.weight, generator=generator)
    return model


def test_a_file_and_its_constructor_draw_the_same_every_time(tmp_path: Any) -> None:
    (tmp_path / "neighbour_of_a_task.py").write_text("WIDTH = 5\n")
    path = tmp_path / "drawing.py"
    path.write_text(
        "import random, torch\nfrom autoranger import Task\nfrom neighbour_of_a_task import WIDTH\n"
        "X = torch.rand(WIDTH)\n\nclass Mine(Task):\n    def __init__(self, *args):\n        super().__init__(*args)\n"
        "        self.drawn = random.random()\n"
    )
    one, other = (create(f"{path}:Mine", "cpu", None) for _ in range(2))
    assert one.drawn == other.drawn
    assert torch.equal(*(__import__("sys").modules[type(t).__module__].X for t in (one, other)))
    path.write_text("from autoranger import Task\n\nclass Mine(Task):\n    def __init__(self):\n        pass\n")
    with pytest.raises(ConfigError, match="cannot be made with a device and a data_dir"):
        create(f"{path}:Mine", "cpu", None)


def test_the_package_offers_the_class() -> None:
    assert autoranger.Task is Task
    with pytest.raises(AttributeError, match="no attribute 'Tasks'"):
        autoranger.Tasks  # noqa: B018


def test_an_encoder_with_a_padding_mask_is_scored_together() -> None:
    """And torch's switch for the fast path of its transformers is as it was."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
            self.encoder, self.last = nn.TransformerEncoder(layer, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            padding = torch.stack([x[:, 0] < -9, x[:, 0] < 0], dim=1)
            return self.last(self.encoder(torch.stack([x, -x], dim=1), src_key_padding_mask=padding).mean(1))

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*torch.func.vmap refuses")
        task = with_model(Encoder)
        population = Population(task)
        scores = population.train(CONFIGS, SEEDS, STEPS)["valid"]
    assert torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        expected = [[alone(task, config, seed) for seed in SEEDS] for config in CONFIGS]
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    np.testing.assert_allclose(scores, expected, rtol=2e-3)


class Perplexity(toy.Toy):
    """A metric of which lower is better."""

    metric_name, direction = "perplexity", "minimize"

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target).exp()


def test_lower_is_better_if_the_task_says_so() -> None:
    task = Perplexity()
    scores = Population(task).train(CONFIGS, SEEDS, STEPS)["valid"]
    assert task.score_name == "minus perplexity"
    for config, of_seeds in zip(CONFIGS, scores, strict=True):
        assert of_seeds == pytest.approx([-alone(task, config, seed) for seed in SEEDS], rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "name"), [("steps:1.5", "minus steps to perplexity 1.5"), ("loss", "minus loss")]
)
def test_objectives_know_the_direction(objective: str, name: str) -> None:
    task, for_objective = with_objective(Perplexity(), objective)
    assert task.score_name == name
    by_objective = for_objective(Population(task)).train([Config(lr=1e-4), Config(lr=0.1)], SEEDS, 40)["valid"].mean(1)
    assert by_objective[0] < by_objective[1] < 0


def test_a_direction_that_the_name_of_a_metric_contradicts_is_asked_for() -> None:
    task = Perplexity()
    task.direction = None
    with pytest.raises(ConfigError, match="lower values of a metric called 'perplexity' are usually better"):
        Population(task)
    task.direction = "maximize"
    assert Population(task).train(CONFIGS[:1], [0], 2)["valid"].item() > 1
    task.direction = "down"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="direction is 'down', but must be 'maximize' or 'minimize'"):
        Population(task)


class Packed(nn.Module):
    """A recurrent model of sequences of several lengths, and the length of each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cells, self.last = nn.Embedding(9, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
        return self.last(self.cells(packed)[1][-1])


REMEDIES = {
    "recurrent": (Recurrent, "write the recurrence with linear layers, in a loop over time"),
    "values": (Running, r"replace item\(\), float\(\) and if by operations on tensors"),
    "checkpointing": (Checkpointed, "leave checkpointing out"),
    "assigned": (Assigned, "keep what changes in buffers, and change them in place"),
    "data": (Clamped, r"change weights in place under torch.no_grad\(\)"),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_what_vmap_refuses_is_said_with_what_it_would_take(name: str) -> None:
    kind, words = REMEDIES[name]
    with pytest.warns(UserWarning, match=f"trains one by one, slower; to avoid that, {words}") as said:
        Population(with_model(kind))
    assert not [str(w.message) for w in said if "lease" in str(w.message) or "performance drop" in str(w.message)]


class Cells(nn.Module):
    """A recurrent model of cells, for which vmap has no rule and calls them one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.GRUCell(1, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t : t + 1], h)
        return self.last(h)


def test_what_vmap_calls_one_by_one_is_said_once() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Population(with_model(Cells)).train(CONFIGS[:1], [0], 2)
    (sentence,) = (str(w.message) for w in said)
    assert "torch.func.vmap calls gru_cell for one candidate after another" in sentence
    assert sentence.endswith("to avoid that, write the recurrence with linear layers, in a loop over time.")


@pytest.mark.filterwarnings("ignore:.*torch.func.vmap refuses")
def test_a_loader_with_a_collate_function_of_its_own_feeds_a_recurrent_model() -> None:
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(1, 9, (2 + i % 5,), generator=generator) for i in range(40)]
    items = [(x, int(x[0] > 4)) for x in sequences]

    def collate(batch: Any) -> Any:
        xs, labels = zip(*batch, strict=True)
        return nn.utils.rnn.pad_sequence(xs, batch_first=True), torch.tensor([len(x) for x in xs]), torch.tensor(labels)

    task = with_model(Packed, data=lambda self: dict.fromkeys(PARTS, DataLoader(items, 16, collate_fn=collate)))
    trained = Population(task).train([Config(lr=0.05)], [0, 1], 30)
    assert task.batch_size == toy.Toy.batch_size, "the task's own"
    assert (trained["valid"] > trained_not_at_all(task)).all()


def trained_not_at_all(task: Task) -> Any:
    return Population(task).train([Config(lr=0.0)], [0, 1], 1)["valid"]


class ByName(Layers):
    """Whose inputs have names."""

    def forward(self, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(pixels if mask is None else pixels * mask)


def named(x: Tensor, y: Tensor, target: str = "labels") -> list[dict[str, Any]]:
    return [{"pixels": a, "mask": torch.ones(4), target: int(b)} for a, b in zip(x, y, strict=True)]


class Sequence:
    """No data set of torch's, but with what one has."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


DICTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "a dictionary": lambda x, y: {"pixels": x, "mask": torch.ones(len(x), 4), "target": y},
    "dictionaries": named,
    "a loader of dictionaries": lambda x, y: DataLoader(named(x, y, "y"), 8, shuffle=True),  # type: ignore[arg-type]
    "an object with items": lambda x, y: Sequence(named(x, y, "label")),
    "batches": lambda x, y: DataLoader([(x[:20], y[:20]), (x[20:], y[20:])], batch_size=None),  # type: ignore[arg-type]
    "a sampler of a part": lambda x, y: DataLoader(
        TensorDataset(torch.cat([x, -x]), torch.cat([y, y])), 8, sampler=SubsetRandomSampler(range(len(x)))
    ),
}


@pytest.mark.parametrize("form", DICTS)
def test_data_with_names_are_what_they_are_without(form: str) -> None:
    def data(self: Task) -> Any:
        return {part: DICTS[form](*pair) for part, pair in toy.Toy().data().items()}

    task = with_model(ByName, data=data)
    expected = Population(with_model(ByName)).train(CONFIGS, SEEDS, STEPS)["valid"]
    np.testing.assert_allclose(Population(task).train(CONFIGS, SEEDS, STEPS)["valid"], expected, rtol=1e-5)


def test_a_dictionary_without_targets_is_said() -> None:
    task = toy.Toy()
    unlabelled = {"x": torch.ones(4, 4), "z": torch.ones(4)}
    task.data = lambda: dict.fromkeys(PARTS, unlabelled)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="train is a dict of x, z; call the targets, and nothing else, 'labels' or"):
        Population(task)


class Unsized(Task):
    """Without a batch size."""

    name = "unsized"

    def data(self) -> Any:
        return {part: DataLoader(TensorDataset(*pair), 7) for part, pair in toy.Toy().data().items()}

    def model(self) -> nn.Module:
        return Layers()


def test_the_batch_size_is_the_loaders_unless_the_task_has_one() -> None:
    task, other = Unsized(), Unsized()
    other.batch_size = 5
    assert (Population(task).task.batch_size, Population(other).task.batch_size) == (7, 5)
    assert Unsized.batch_size == Task.batch_size


def test_a_sampler_that_repeats_examples_is_said() -> None:
    def data(self: Task) -> Any:
        sets = {part: TensorDataset(*pair) for part, pair in toy.Toy().data().items()}
        weights = torch.arange(float(len(sets["train"])))
        return sets | {"train": DataLoader(sets["train"], 8, sampler=WeightedRandomSampler(weights, len(weights)))}

    with pytest.warns(UserWarning, match="train has a sampler that draws some examples more often than others"):
        Population(with_model(Layers, data=data))

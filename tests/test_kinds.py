"""Kinds of parameters: how they are found, and what a config says of each."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoranger import Component, Config, ConfigError, Ranger21, Signals, Stage
from autoranger.components.core.component import registry
from autoranger.components.core.kinds import kinds_of
from autoranger.components.core.proxy import proxy_of
from autoranger.components.presets import RANGER21
from autoranger.search.population.population import Population
from autoranger.search.tasks.shakespeare import Transformer
from autoranger.search.vectorization import batch_order
from tests.toy import Pictures, Text


class Own(nn.Module):
    """A language model as people write their own; `tied` as in most, or by `F.linear` alone."""

    def __init__(self, tied: str = "", blocks: int = 2) -> None:
        super().__init__()
        self.wte, self.pos = nn.Embedding(11, 8), nn.Parameter(torch.zeros(1, 5, 8))
        self.h = nn.ModuleList(map(block, range(blocks)))
        if tied != "function":
            self.out = nn.Linear(8, 11, bias=False)
        if tied == "module":
            self.out.weight = self.wte.weight
        self.gain = nn.Parameter(torch.ones(1, 1, 8))


class Seeing(nn.Module):
    """The parameters of a vision transformer, by the names that timm gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 5, 8))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, 8, 4)})
        self.blocks = nn.ModuleList(map(block, range(2)))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 2)


def block(_: int) -> nn.Module:
    layers = {"attn": nn.MultiheadAttention(8, 2), "ln": nn.LayerNorm(8), "up": nn.Linear(8, 16)}
    return nn.ModuleDict(layers | {"down": nn.Linear(16, 8)})


def wrapped(model: nn.Module) -> nn.Module:
    return nn.ModuleDict({"module": model})


class Telling(nn.Module):
    """A model that says what its output layer is, as those of transformers and timm do."""

    def __init__(self, method: str, answer: Any) -> None:
        super().__init__()
        self.score, self.body = nn.Linear(4, 2), nn.Linear(2, 2)
        setattr(self, method, lambda: answer(self))


def by_kind(model: nn.Module) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, kind in kinds_of(model).items():
        found.setdefault(kind, []).append(name)
    return found


def test_a_language_model_of_ones_own() -> None:
    kinds = by_kind(Own())
    assert kinds["embedding"] == ["pos", "wte.weight"]
    assert kinds["head"] == ["out.weight"]
    assert len(kinds["hidden"]) == 2 * 4  # in_proj, out_proj, up, down
    assert {name.rpartition(".")[2] for name in kinds["vector"]} == {"gain", "bias", "in_proj_bias", "weight"}
    assert all(".ln." in name for name in kinds["vector"] if name.endswith("weight"))


@pytest.mark.parametrize("blocks", [1, 2])
def test_weights_that_the_output_shares_with_the_embedding(blocks: int) -> None:
    assert by_kind(Own("module", blocks))["head"] == ["wte.weight"]
    assert "head" not in by_kind(Own("function", blocks))


@pytest.mark.parametrize(
    ("model", "head"),
    [
        (nn.Linear(3, 1), "weight"),
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)), "2.weight"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)), "3.weight"),
        (nn.ModuleDict({"head": nn.Linear(4, 2), "body": nn.Linear(4, 4)}), "head.weight"),
        (nn.ModuleDict({"classifier": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))}), "classifier.1.weight"),
        (wrapped(nn.ModuleDict({"lm_head": nn.Linear(4, 2), "x": nn.Linear(2, 2)})), "module.lm_head.weight"),
        (Telling("get_output_embeddings", lambda model: model.score), "score.weight"),
        (wrapped(Telling("get_classifier", lambda model: [model.score])), "module.score.weight"),
        (Telling("get_output_embeddings", lambda model: None), "body.weight"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), "parametrizations.weight.original1"),
        (Transformer(characters=5, context=4, width=8, heads=2, blocks=2, hidden=8), "head.weight"),
    ],
    ids=str,
)  # fmt: skip
def test_the_output_layer(model: nn.Module, head: str) -> None:
    assert head in by_kind(model)["head"]
    assert {name for name in by_kind(model)["head"] if "parametrizations" not in name} <= {head}


def test_several_output_layers() -> None:
    several = nn.ModuleDict({"body": nn.Linear(4, 4), "heads": nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 1)])})
    assert by_kind(several)["head"] == ["heads.0.weight", "heads.1.weight"]


def test_transformers_and_timm_say_what_their_output_is() -> None:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 8}
    gpt = by_kind(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)))
    assert gpt["head"] == ["transformer.wte.weight"]
    assert gpt["embedding"] == ["transformer.wpe.weight"]
    assert len(gpt["hidden"]) == 2 * 4
    timm = pytest.importorskip("timm")
    vit = by_kind(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3))
    assert vit["head"] == ["head.weight"]
    assert vit["embedding"] == ["pos_embed"]
    resnet = by_kind(timm.create_model("resnet18", num_classes=3))
    assert resnet["head"] == ["fc.weight"]
    assert all(name.endswith(".weight") for name in resnet["hidden"])
    assert "cls_token" in vit["vector"]


def test_a_model_is_a_group_for_each_kind() -> None:
    model = Own()
    config = Config(lr=0.1, weight_decay=0.2, kinds={"vector": {"weight_decay": 0}, "head": {"lr_factor": 0.25}})
    groups = config.build(model).param_groups
    assert [g["kind"] for g in groups] == ["hidden", "embedding", "head", "vector"]
    assert [g["lr"] for g in groups] == pytest.approx([0.1, 0.1, 0.025, 0.1])
    assert [g["weight_decay"] for g in groups] == [0.2, 0.2, 0.2, 0]
    assert groups[1]["param_names"] == ["pos", "wte.weight"]
    assert sum(len(g["params"]) for g in groups) == len([*model.parameters()])
    assert [g["kind"] for g in Ranger21(model, total_steps=3).param_groups] == [g["kind"] for g in groups]


def test_bare_parameters_are_of_their_shapes_kind() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    config = Config(lr=0.1, kinds={"vector": {"lr_factor": 2}})
    groups = config.build(net.parameters()).param_groups
    assert [(g["kind"], g["lr"], len(g["params"])) for g in groups] == [("hidden", 0.1, 1), ("vector", 0.2, 3)]
    (plain,) = Config().build(net.parameters()).param_groups
    assert plain["kind"] is None


def test_numbers_of_a_group_win_over_those_of_its_kind() -> None:
    net = nn.Linear(3, 4)
    config = Config(lr=0.1, kinds={"vector": {"lr_factor": 2, "weight_decay": 0.5}})
    optimizer = config.build([{"params": [net.weight]}, {"params": [net.bias], "lr": 7.0, "weight_decay": 0.25}])
    assert [(g["kind"], g["lr"]) for g in optimizer.param_groups] == [("hidden", 0.1), ("vector", 7.0)]
    assert optimizer.param_groups[1]["weight_decay"] == 0.25
    more = nn.LayerNorm(2)
    optimizer.add_param_group({"params": [*more.parameters()], "lr_factor": 0.5})
    assert [(g["kind"], g["lr"]) for g in optimizer.param_groups[2:]] == [("vector", 0.1)]


def test_names_decide_before_anything_else() -> None:
    net = nn.ModuleDict({"body": nn.Linear(3, 3), "adapter": nn.Linear(3, 3), "last": nn.Linear(3, 2)})
    config = Config(lr=0.1, kinds={"embedding": {"names": ["adapter.*"], "lr_factor": 3}})
    for params in (net, net.named_parameters()):
        (group,) = [g for g in config.build(params).param_groups if g["kind"] == "embedding"]
        assert group["lr"] == pytest.approx(0.3)
        assert group["param_names"] == ["adapter.weight", "adapter.bias"]


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"hiden": {"lr_factor": 2}}, "unknown kind of parameters 'hiden'; did you mean 'hidden'"),
        ({"head": {"weigth_decay": 2}}, "unknown key 'weigth_decay' of kinds.head; did you mean 'weight_decay'"),
        ({"head": {"lr_factor": -1}}, "kinds.head.lr_factor is -1, but must be a number from 0"),
        ({"head": {"names": "a.*"}}, "kinds.head.names is 'a.*', but must be a list of patterns"),
        ({"head": 3}, "kinds.head is 3, but must be a table"),
        (3, "kinds must be a table"),
    ],
)
def test_wrong_tables(kinds: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        Config(kinds=kinds)


def test_patterns_that_match_nothing_or_twice() -> None:
    net = nn.Linear(3, 3)
    with pytest.raises(ConfigError, match=r"no parameter is called 'x\.\*'.*called like weight"):
        Config(kinds={"head": {"names": ["x.*"]}}).build(net)
    with pytest.raises(ConfigError, match="pass the model itself"):
        Config(kinds={"head": {"names": ["x.*"]}}).build(net.parameters())
    with pytest.raises(ConfigError, match=r"of both kinds\.\w+ and kinds\.\w+ match bias"):
        Config(kinds={"head": {"names": ["*"]}, "vector": {"names": ["bias"]}}).build(net)
    with pytest.raises(ConfigError, match="unknown kind of parameters 'matrix'"):
        Config().build([{"params": [net.weight], "kind": "matrix"}])


KINDS = {"hidden": {"lr_factor": 0.5}, "vector": {"weight_decay": 0.0, "lr_factor": 2.0}, "head": {"weight_decay": 0.3}}


def test_a_file_keeps_kinds(tmp_path: Any) -> None:
    config = Config(lr=0.01, kinds={**KINDS, "embedding": {"names": ["wte.*"]}})
    config.save(tmp_path / "x.toml")
    assert Config.load(tmp_path / "x.toml") == config
    assert "[kinds.vector]" in (tmp_path / "x.toml").read_text()
    assert "kinds" not in Config().to_dict()
    assert len({config, Config(lr=0.01, kinds=KINDS), Config(lr=0.01)}) == 3


@pytest.mark.usefixtures("way")
def test_kinds_are_as_two_optimizers_of_torch() -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours = Config(lr=0.02, weight_decay=0.1, kinds=KINDS).build(nets[0])
    (hidden, b1), (head, b2) = ((layer.weight, layer.bias) for layer in (nets[1][0], nets[1][2]))
    theirs = torch.optim.AdamW([
        {"params": [hidden], "lr": 0.01, "weight_decay": 0.1},
        {"params": [b1, b2], "lr": 0.04, "weight_decay": 0.0},
        {"params": [head], "lr": 0.02, "weight_decay": 0.3},
    ])  # fmt: skip
    x, y = torch.randn(16, 4), torch.randint(0, 2, (16,))
    for _ in range(5):
        for net, optimizer in zip(nets, (ours, theirs), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    for mine, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other)


EIGHT = dict.fromkeys(RANGER21, True)
MIXED = {
    "vector": {"components": {"lookahead": False, "positive_negative_momentum": False, "linear_warmup": False}},
    "head": {"components": {"adaptive_gradient_clipping": {"clip": 0.003}, "stable_weight_decay": {"scope": "global"}}},
}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("components", "kinds"),
    [
        (EIGHT, MIXED),
        (EIGHT, {"hidden": {"components": dict.fromkeys(RANGER21, False)}}),
        ({"global_norm_clipping": {"max_norm": 0.5}}, {"vector": {"components": {"global_norm_clipping": False}}}),
        ({}, {"head": {"components": {"madgrad": {}}}, "hidden": {"components": {"sgd_momentum": {}}}}),
    ],
    ids=["mixed", "plain hidden", "a norm over the others", "other cores"],
)
def test_components_of_a_kind_are_as_an_optimizer_for_it_alone(components: Any, kinds: Any) -> None:
    """However the step is run; sums over the model are over the parameters that have the component on."""
    nets = [net_of(0) for _ in range(2)]
    config = Config(lr=0.02, weight_decay=0.1, components=components, kinds=kinds)
    ours = config.build(nets[0], total_steps=20)
    kinds_there = kinds_of(nets[1])
    parts = {kind: [p for name, p in nets[1].named_parameters() if kinds_there[name] == kind] for kind in KINDS}
    same: dict[Any, list[Any]] = {}
    for kind, params in parts.items():  # those of the same config are one optimizer
        same.setdefault(config.of(kind), []).extend(params)
    theirs = [own.build(params, total_steps=20, compile=False) for own, params in same.items()]
    for step in range(12):
        for net, optimizers in zip(nets, ([ours], theirs), strict=True):
            backward(net, step)
            for optimizer in optimizers:
                optimizer.step()
    for mine, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    assert {tuple(entry) for entry in ours.state.values()} == {tuple(e) for o in theirs for e in o.state.values()}


def net_of(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 2))


def backward(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(16, 4, generator=generator), torch.randint(0, 2, (16,), generator=generator)
    net.zero_grad()
    F.cross_entropy(net(x), y).backward()


def test_a_component_may_be_for_some_kinds_alone() -> None:
    config = Config(lr=0.1, components={"for_matrices": {}})
    assert config.of("hidden").components
    assert not config.of("vector").components
    nets = [nn.Linear(3, 2), nn.Linear(3, 2)]
    nets[1].load_state_dict(nets[0].state_dict())
    ours, theirs = config.build(nets[0].parameters()), Config(lr=0.1).build(nets[1].parameters())
    for net, optimizer in zip(nets, (ours, theirs), strict=True):
        backward_sum(net)
        optimizer.step()
    torch.testing.assert_close(nets[0].bias, nets[1].bias)
    assert not torch.equal(nets[0].weight, nets[1].weight)
    assert [g["components"] for g in ours.param_groups] == [{"for_matrices": True}, None]


def backward_sum(net: nn.Module) -> None:
    net(torch.ones(1, 3)).square().sum().backward()


@pytest.fixture(autouse=True)
def _matrices() -> Any:
    class ForMatrices(Component):
        """Twice the step, for matrices."""

        stage = Stage.UPDATE
        kinds = frozenset({"hidden", "head"})

        def forward(self, x: Signals) -> Signals:
            return x._replace(update=2 * x.update)

    yield
    del registry["for_matrices"]


def test_components_of_a_kind_that_do_not_fit() -> None:
    wrong = {"vector": {"components": {"madgrad": True}}}
    with pytest.raises(ConfigError, match=r"kinds\.vector: .* exclude each other"):
        Config(components={"sgd_momentum": {}}, kinds=wrong)
    with pytest.raises(ConfigError, match=r"kinds\.vector: unknown component 'look_ahead'"):
        Config(kinds={"vector": {"components": {"look_ahead": False}}})
    with pytest.raises(ConfigError, match="total_steps is missing"):
        Config(kinds={"head": {"components": {"linear_warmup": True}}}).build(nn.Linear(2, 2))


@pytest.mark.usefixtures("way")
def test_a_state_with_components_by_kind_goes_on() -> None:
    config = Config(lr=0.02, weight_decay=0.1, components=EIGHT, kinds=MIXED)
    nets = [net_of(0) for _ in range(2)]
    optimizers = [config.build(net, total_steps=20) for net in nets]
    for step in range(8):
        if step == 3:
            optimizers[1] = config.build(nets[1], total_steps=20)
            optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
        for net, optimizer in zip(nets, optimizers, strict=True):
            backward(net, step)
            optimizer.step()
    for mine, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    with pytest.raises(ConfigError, match="other components"):
        Config(components=EIGHT).build(nets[0], total_steps=20).load_state_dict(optimizers[0].state_dict())


def test_a_state_goes_on_and_knows_its_kinds() -> None:
    net = nn.Linear(3, 3)
    first, second = (Config(lr=0.1, kinds=KINDS).build(net) for _ in range(2))
    state = first.state_dict()
    for group in state["param_groups"]:  # as of a version without kinds
        del group["kind"]
    second.load_state_dict(state)
    assert [g["kind"] for g in second.param_groups] == ["head", "vector"]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("task", [Text, Pictures])
def test_a_search_trains_with_kinds_as_the_optimizer_does(task: Any) -> None:
    """Beside a config that says nothing of kinds, and one that knows other parameters by name."""
    problem = task()
    named = {"hidden": {"names": ["*bias"], "lr_factor": 0.1}} if task is Pictures else {}
    configs = [
        Config(lr=0.02, kinds=KINDS),
        Config(lr=0.02),
        Config.preset("ranger21", lr=0.02, kinds=KINDS | named),
        Config(lr=0.02, components=EIGHT, kinds=MIXED),
    ]
    together = Population(problem).train(configs, [0], steps=4)["valid"]
    for config, value in zip(configs, together[:, 0], strict=True):
        assert value == pytest.approx(alone(problem, config, steps=4), rel=1e-4)
    assert len({float(v) for v in together[:, 0]}) == len(configs)


def alone(task: Any, config: Config, steps: int) -> float:
    """The same training as a user would write it, with the optimizer over the model."""
    inputs, targets = task.data()["train"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = task.model()
    optimizer = config.build(model, total_steps=steps, batch_size=task.batch_size)
    for indices in batch_order(len(inputs), task.batch_size, steps, 0):
        optimizer.zero_grad()
        task.loss(model(inputs[indices]), targets[indices]).backward()
        optimizer.step()
    x, y = task.data()["valid"]
    with torch.no_grad():
        return float(task.metric(model.eval()(x), y))


def beit_layer(name: str, blocks: int) -> int:
    """The layer of a parameter as BEiT's code for fine-tuning has it (arXiv 2106.08254), for the names of `Own`."""
    if name.startswith(("wte", "pos")):
        return 0
    if name.startswith("h."):
        return int(name.split(".")[1]) + 1
    return blocks + 1


@pytest.mark.parametrize("proxy", [{}, proxy_of(wrapped(Own()), 8, 100)], ids=["as it is", "scaled"])
def test_rates_fall_from_layer_to_layer(proxy: dict[str, Any]) -> None:
    model, config = wrapped(Own(blocks=3)), Config(lr=0.1, components={"lookahead": {}}, proxy=proxy)
    names = {p: name.removeprefix("module.") for name, p in model.named_parameters()}
    plain, decayed = (
        {names[p]: group for group in config.build(model, 200, layer_decay=decay).param_groups for p in group["params"]}
        for decay in (None, 0.5)
    )
    assert decayed.keys() == {*names.values()}
    for name, group in decayed.items():
        assert group["lr"] == pytest.approx(plain[name]["lr"] * 0.5 ** (4 - beit_layer(name, 3))), name
        assert group["kind"] == plain[name]["kind"]
        assert group["weight_decay"] == plain[name]["weight_decay"]
    assert decayed["h.1.up.weight"]["laws"]["layer"] == 0.25


def test_rates_of_a_vision_transformer() -> None:
    """BEiT's rule: class token, positions and patches are layer 0, then the blocks, and the rest is the last layer."""
    model = Seeing()
    names = {p: name for name, p in model.named_parameters()}
    for group in Config(lr=0.1).build(model, layer_decay=0.5).param_groups:
        for p in group["params"]:
            name = names[p]
            below = name.startswith(("cls_token", "pos_embed", "patch_embed"))
            layer = 0 if below else int(name.split(".")[1]) + 1 if name.startswith("blocks") else 3
            assert group["lr"] == pytest.approx(0.1 * 0.5 ** (3 - layer)), name


@pytest.mark.parametrize(
    ("params", "decay", "words"),
    [
        (nn.Linear(2, 2), 0.5, "this model has none"),
        ([nn.Parameter(torch.ones(2))], 0.5, "pass the model"),
        (Own(), 1.5, "layer_decay is 1.5, but must be a factor above 0 and at most 1"),
        (Own(), True, "layer_decay is True"),
    ],
)
def test_a_decay_by_layer_that_cannot_be(params: Any, decay: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Config().build(params, layer_decay=decay)

"""What a parameter is for: its kind, found from the layer that it belongs to, its name and its shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase

from torch import Tensor, nn

from autoranger.components.core.errors import ConfigError, unknown

KINDS = {
    "hidden": "weights of linear and convolutional layers",
    "embedding": "tables of tokens, of positions and the like",
    "head": "weights of the output layer, those that it shares with an embedding included",
    "vector": "biases, gains of normalization, scalars",
}
"""The kinds of parameters, and what they are."""

HEAD = re.compile(r"(^|_)(lm_?head|head|classifier|logits|readout|unembed(ding)?)s?$")
"""What output layers are called."""

TABLE = re.compile(r"(^|_)(w?[tp]e|pos(ition)?s?|tokens?|class_token|\w*emb\w*)$")
"""What parameters are called that a module adds to its inputs, without a layer for them."""

EMBEDDINGS = nn.Embedding | nn.EmbeddingBag
"""Layers whose weights are tables of vectors."""


def kinds_of(model: nn.Module) -> dict[str, str]:
    """The kind of each of a model's parameters, by its name.

    A layer tells what its weights are. The output layer is what the model says that it is, as those of transformers
    (`get_output_embeddings`) and timm (`get_classifier`) do, or what is called so (head, lm_head, classifier, …), or
    else the last layer with weights; not one of several equal blocks, and not one that leads back to the width of the
    embedding, since such a model gives the embedding to `F.linear`. Weights that it shares with an embedding are head.

    >>> kinds_of(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 9, bias=False)))
    {'0.weight': 'embedding', '1.weight': 'hidden', '1.bias': 'vector', '2.weight': 'vector', ... '3.weight': 'head'}
    """
    output = [p for layer in output_layers(model) for p in layer.parameters() if has_rows(p)]
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        for own, p in module.named_parameters(recurse=False):
            is_output = any(p is other for other in output)
            found[f"{path}.{own}" if path else own] = "head" if is_output else kind_in(module, own, p)
    return {name: found[name] for name, _ in model.named_parameters()}


def tables_of(model: nn.Module) -> set[Tensor]:
    """The weights of a model's embeddings."""
    return {module.weight for module in model.modules() if isinstance(module, EMBEDDINGS)}


def kind_in(layer: nn.Module, name: str, p: Tensor) -> str:
    """The kind of a layer's own parameter of this name."""
    if "Norm" in type(layer).__name__ or p.dim() < 2:
        return "vector"
    if isinstance(layer, EMBEDDINGS):
        return "embedding"
    if is_layer(layer):
        return "hidden"
    return "embedding" if has_rows(p) and TABLE.search(name) else kind_of(p)


def kind_of(p: Tensor) -> str:
    """The kind of a parameter of which nothing is known but its shape."""
    return "hidden" if has_rows(p) else "vector"


def has_rows(p: Tensor) -> bool:
    """Whether a parameter is a matrix or a kernel; a vector stays one, however many axes of length 1 it has."""
    return p.dim() == 2 or sum(length > 1 for length in p.shape) > 1


def is_layer(module: nn.Module) -> bool:
    """Whether a module multiplies its inputs with weights of its own."""
    if "Norm" in type(module).__name__ or isinstance(module, EMBEDDINGS):
        return False
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() > 1


def output_layers(model: nn.Module) -> list[nn.Module]:
    """The layers whose outputs are the model's."""
    if (told := told_by(model)) is not None:
        return told
    layers = {path: module for path, module in model.named_modules() if is_layer(module)}
    if named := [layer for place in called_so(model) for layer in last_in(place)]:
        return named
    if not layers:
        return []
    path, last = [*layers.items()][-1]
    widths = {module.embedding_dim for module in model.modules() if isinstance(module, EMBEDDINGS)}
    if is_in_block(path) and (has_equal(path, layers) or outputs(last) in widths):
        return []
    return [last]


def told_by(model: nn.Module) -> list[nn.Module] | None:
    """The output layers that a model of transformers or timm names, within whatever wraps it; None where none does."""
    for module in model.modules():
        for method in ("get_output_embeddings", "get_classifier"):
            if callable(ask := getattr(module, method, None)):
                with suppress(AttributeError, NotImplementedError, TypeError):
                    told = ask()
                    several = told if isinstance(told, list | tuple) else [told]
                    if any(isinstance(layer, nn.Module) for layer in several):
                        return [layer for layer in several if isinstance(layer, nn.Module)]
    return None


def called_so(model: nn.Module) -> list[nn.Module]:
    """The modules that are called like an output, the outermost ones, without those in numbered blocks."""
    found = {
        path: module
        for path, module in model.named_modules()
        if HEAD.search(path.rpartition(".")[2]) and not is_in_block(path)
    }
    depth = min((path.count(".") for path in found), default=0)
    return [module for path, module in found.items() if path.count(".") == depth]


def last_in(place: nn.Module) -> Iterator[nn.Module]:
    """The last layer in a module; in each member of a list of them."""
    if isinstance(place, nn.ModuleList | nn.ModuleDict):
        for module in place.children():
            yield from last_in(module)
    elif layers := [module for module in place.modules() if is_layer(module)]:
        yield layers[-1]


def is_in_block(path: str) -> bool:
    """Whether a layer is within a numbered block, and not itself what has the number."""
    return bool(re.search(r"(^|\.)\d+\.", path))


def has_equal(path: str, layers: Mapping[str, nn.Module]) -> bool:
    """Whether another block has a layer of the same shape at the same place."""
    weight, place = layers[path].weight, unnumbered(path)
    return any(
        name != path and unnumbered(name) == place and layer.weight.shape == weight.shape
        for name, layer in layers.items()
    )


def unnumbered(name: str) -> str:
    """A name with stars for the numbers of blocks: `blocks.3.mlp.weight` becomes `blocks.*.mlp.weight`."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def outputs(layer: nn.Module) -> int:
    """How many outputs a layer has."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return int(getattr(layer, "nf", weight.shape[0]))  # what transformers' Conv1D calls it, whose weights are turned


def check_kind(kind: object) -> str:
    """`kind`; ConfigError where there is no such kind."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise unknown("kind of parameters", str(kind), KINDS)
    return kind


def renamed(kinds: Mapping[str, str], patterns: Mapping[str, Iterable[str]], *, partly: bool = False) -> dict[str, str]:
    """The kinds of parameters by name, where some are given to a kind by patterns such as `*.adapter.*`.

    Args:
        kinds: as they are without.
        patterns: for each kind that has some.
        partly: whether a pattern may match nothing.

    Raises:
        ConfigError: where a pattern matches nothing, or patterns of two kinds match the same name.
    """
    found = dict[str, str]()
    for kind, some in patterns.items():
        for pattern in some:
            matches = [name for name in kinds if fnmatchcase(name, pattern)]
            if not matches and not partly:
                example = next(iter(kinds), None)
                called = f"they are called like {example}" if example else "there are no names: pass the model itself"
                raise ConfigError(f"no parameter is called {pattern!r}, as kinds.{kind}.names says; {called}.")
            for name in matches:
                if found.setdefault(name, kind) != kind:
                    raise ConfigError(
                        f"names of both kinds.{found[name]} and kinds.{kind} match {name}; a parameter has one kind."
                    )
    return {**kinds, **found}

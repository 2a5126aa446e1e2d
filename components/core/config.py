"""`Config`: an optimizer as plain data, its TOML file, and how it becomes a `torch.optim.Optimizer`."""

from __future__ import annotations

import copy
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from autoranger.components.core import by_kind
from autoranger.components.core.by_kind import ByKind
from autoranger.components.core.component import Component, Settings, conflicts, registry
from autoranger.components.core.errors import ConfigError, DataError, reason, unknown
from autoranger.components.core.files import write_whole
from autoranger.components.core.hyper import Setting, plain_number
from autoranger.components.core.proxy import Proxy, check_proxy
from autoranger.components.core.registry import origin
from autoranger.components.presets import PRESETS

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim.optimizer import ParamsT

    from autoranger.components.optimizer.optimizer import ComposedOptimizer

Compile = bool | Literal["auto"]
"""Whether a step is compiled: always, never, or where it can be."""

EVIDENCE = "evidence"
"""The table of a config file that says where the config comes from; it is not part of the config."""

ORIGIN = "origin"
"""The table that says where components come from that are not autoranger's; nor is it part of the config."""


def check_number(name: str, value: object, *, below: float = math.inf) -> float:
    """`value` as a float from 0 up to but excluding `below`; ConfigError otherwise."""
    number = plain_number(value)
    if number is not None and 0 <= number < below:
        return float(number)
    limit = f" below {below:g}" if math.isfinite(below) else ""
    raise ConfigError(f"{name} is {value!r}, but must be a number from 0{limit}.")


def check_betas(value: object) -> tuple[float, float]:
    """`value` as two floats in [0, 1); ConfigError otherwise."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"betas is {value!r}, but must be two numbers from 0 below 1.")
    return check_number("betas[0]", value[0], below=1), check_number("betas[1]", value[1], below=1)


@dataclass(frozen=True)
class Config:
    """An optimizer as data: AdamW's hyperparameters and the components that are on. Anything else is off.

    >>> config = Config(lr=3e-4, components={"gradient_centralization": {}, "lookahead": {"k": 6}})
    >>> config.components["lookahead"]
    {'k': 6, 'alpha': 0.5}
    >>> config.save("mine.toml")
    >>> Config.load("mine.toml") == config
    True
    >>> optimizer = config.build(torch.nn.Linear(2, 1).parameters())
    >>> Config.preset("ranger", lr=3e-4).needs_total_steps, Config.preset("ranger21").needs_total_steps
    ([], ['explore_exploit', 'linear_warmup'])

    Args:
        lr: learning rate η, 1e-3.
        betas: decay rates of the first and second moment, (0.9, 0.999).
        eps: ε of the denominator, 1e-8.
        weight_decay: λ, 1e-4.
        components: id of each component that is on, with its hyperparameters (`{}` for the defaults). `True` means
            `{}`, and `False` leaves a component off. Missing hyperparameters are filled in.
        kinds: what differs for single kinds of parameters (hidden, embedding, head, vector; see `core.kinds`): a factor
            on the rate, `lr_factor`, their own `weight_decay`, `components` that are on or off for them alone, and
            `names`, patterns of parameters that are of the kind whatever else they look like.
        proxy: what the config was found on, as a search notes it (see `core.proxy`); `build` goes from there to the
            model and the training that it is given.

    Raises:
        ConfigError: (a ValueError) on an unknown component, hyperparameter or kind, a value out of range, or two
            components that exclude each other.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-4
    components: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)
    kinds: ByKind = field(default_factory=dict)
    proxy: Proxy = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lr", "eps", "weight_decay"):
            object.__setattr__(self, name, check_number(name, getattr(self, name)))
        object.__setattr__(self, "betas", check_betas(self.betas))
        object.__setattr__(self, "components", complete(self.components))
        object.__setattr__(self, "kinds", by_kind.check(self.kinds))
        object.__setattr__(self, "proxy", check_proxy(self.proxy))
        for kind in self.kinds:
            try:
                self.of(kind)
            except ConfigError as error:
                raise ConfigError(f"kinds.{kind}: {error}") from None

    def __hash__(self) -> int:
        chosen = tuple((name, tuple(settings.items())) for name, settings in self.components.items())
        more = by_kind.frozen(self.kinds), str(self.proxy)
        return hash((self.lr, self.betas, self.eps, self.weight_decay, chosen, *more))

    def __reduce__(self) -> tuple[type[Config], tuple[Any, ...]]:
        """A copy is made anew, so that the components of a pickled config are found where it is loaded."""
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    @property
    def needs_total_steps(self) -> list[str]:
        """Ids of the components that are on and need to know the length of the training."""
        every = {name for c in (self, *map(self.of, self.kinds)) for name in c.components}
        return [name for name in registry if name in every and registry[name].needs_total_steps]

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Config:
        """A named point of the space (see `presets`), its fields overridden by `overrides`."""
        if name not in PRESETS:
            raise unknown("preset", name, PRESETS)
        return replace(cls.from_dict(PRESETS[name].fields), **known_fields(overrides))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The config of a mapping with the fields as keys; ConfigError on an unknown one."""
        return cls(**known_fields(values))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers, as in the file."""
        components = {name: dict(settings) for name, settings in self.components.items()}
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        more = {name: copy.deepcopy(dict(values.pop(name))) for name in ("kinds", "proxy")}
        said = {name: table for name, table in more.items() if table}
        return values | {"betas": list(self.betas), "components": components} | said

    def of(self, kind: str | None) -> Config:
        """The config of the parameters of one kind, which says nothing of kinds any more; None means any other.

        >>> Config(lr=0.1, kinds={"vector": {"lr_factor": 2, "weight_decay": 0}}).of("vector")
        Config(lr=0.2, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, components={}, kinds={})
        """
        return replace(self, **by_kind.of(self.kinds, vars(self), kind)) if self.is_by_kind else self

    @property
    def is_by_kind(self) -> bool:
        """Whether anything differs between kinds of parameters."""
        return bool(self.kinds) or any(registry[name].kinds for name in self.components)

    def build(
        self,
        params: ParamsT | nn.Module,
        total_steps: int | None = None,
        *,
        batch_size: int | None = None,
        examples: int | None = None,
        scale: bool = True,
        layer_decay: float | None = None,
        maximize: bool = False,
        compile: Compile = "auto",
        state_dtype: torch.dtype | None = None,
    ) -> ComposedOptimizer:
        """The optimizer over a model, or over parameters; see `ComposedOptimizer`.

        Args:
            params, total_steps, maximize, compile, state_dtype: as there.
            batch_size: examples in each step of the training, to which a model is scaled.
            examples: of its training data. Default: as many as the proxy had.
            scale: whether a model's rates and weight decay are scaled from the config's `proxy`, where it has one, to
                this model, length and batch size (`core.laws`; what acted is in `param_groups` under `laws`).
            layer_decay: factor between the rate of each layer of a model and that of the next one, as in fine-tuning;
                0.65 to 0.9 is usual. The output layer has the whole rate. Default: all layers have it.
        """
        from autoranger.components.optimizer.optimizer import build

        how = {"total_steps": total_steps, "maximize": maximize, "compile": compile, "state_dtype": state_dtype}
        return build(params, self, batch_size, examples, scale=scale, layer_decay=layer_decay, **how)

    def save(self, path: str | os.PathLike[str], evidence: Mapping[str, Any] | None = None) -> None:
        """Writes the config as TOML, with `evidence` in a table of its own. The file is replaced whole or not at all.

        Where a component is not autoranger's, the table `origin` says which package or file it comes from.

        Raises:
            DataError: (a RuntimeError) where it cannot be written.
        """
        origins = {name: place for name in self.components if (place := origin(registry[name]))}
        more = {ORIGIN: origins, EVIDENCE: dict(evidence or {})}
        document = self.to_dict() | {name: table for name, table in more.items() if table}
        write_whole(Path(path), tomli_w.dumps(document))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Config:
        """The config in a TOML file, as `save` writes it.

        Components of other installed packages are found. One of a file, such as a task's, is known once that file has
        been imported, which is never done because a config says so.

        Raises:
            DataError: (a RuntimeError) where the file cannot be read.
            ConfigError: (a ValueError) where it is not TOML, has unknown keys or invalid values.
        """
        return read(path)[0]


def known_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as a dict; ConfigError where a key is not a field of Config."""
    names = [f.name for f in fields(Config)]
    for name in values:
        if name not in names:
            raise unknown("config key", name, names)
    return dict(values)


def complete(components: object) -> dict[str, dict[str, Setting]]:
    """The components that are on, in the order in which they act, every hyperparameter checked and filled in."""
    if not isinstance(components, Mapping):
        raise ConfigError("components must be a table with one entry for each component that is on.")
    chosen: dict[str, Settings] = {}
    for name, given in components.items():
        cls = Component.named(name)
        if given is True or isinstance(given, Mapping):
            chosen[name] = cls.complete({} if given is True else given)
        elif given is not False:
            raise ConfigError(f"{name} is {given!r}, but must be true, false or a table of its hyperparameters.")
    for one, other in conflicts(chosen):
        reason = registry[one].excludes(registry[other])
        raise ConfigError(f"{one} and {other} exclude each other: {reason}; set {one}=False or {other}=False.")
    return {name: dict(chosen[name]) for name in registry if name in chosen}


def read(path: str | os.PathLike[str]) -> tuple[Config, dict[str, Any]]:
    """The config and the evidence in a file; raises as `Config.load`."""
    try:
        text = Path(path).read_bytes().decode()
        document = tomllib.loads(text)
    except OSError as error:
        raise DataError(f"cannot read the config {path}: {reason(error)}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} is not a TOML file ({error}); write one with Config.save or autoranger search."
        ) from None
    evidence, origins = document.pop(EVIDENCE, {}), document.pop(ORIGIN, {})
    try:
        look_for(document.get("components"), origins)
        return Config.from_dict(document), evidence
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def look_for(components: object, origins: object) -> None:
    """ConfigError where a component is unknown here of which the file says where it comes from."""
    if not isinstance(components, Mapping) or not isinstance(origins, Mapping):
        return
    for name in components:
        place = origins.get(name)
        if not (isinstance(place, str) and place.isprintable()) or registry.find(name):
            continue
        if place.endswith(".py"):
            fix = f"import that file first, on the command line by --task {place}"
        else:
            fix = "install that package, or import it first"
        raise ConfigError(f"component '{name}' is of {place!r}, which is not loaded; {fix}.")


def load(source: str | os.PathLike[str]) -> Config:
    """The config in a file, or the preset of that name where there is no such file.

    >>> load("adamw").weight_decay
    0.01
    >>> Config(lr=0.5).save("tuned.toml")
    >>> load("tuned.toml").lr
    0.5
    """
    if str(source) in PRESETS and not Path(source).exists():
        return Config.preset(str(source))
    if not Path(source).exists() and Path(source).suffix != ".toml":
        raise ConfigError(f"{unknown('preset', str(source), PRESETS)} A config file has to exist.")
    return Config.load(source)

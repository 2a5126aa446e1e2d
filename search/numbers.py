"""The numbers of a config by name: betas, eps, weight decay, and its components' hyperparameters.

>>> config = Config(weight_decay=0.1, components={"lookahead": {"k": 6}})
>>> unusual(config.to_dict())
{'weight_decay': 0.1, 'lookahead.k': 6}
>>> with_numbers(Config(components={"lookahead": {}}), {"weight_decay": 0.1, "lookahead.k": 6}) == config
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoranger.components.core.component import registry
from autoranger.components.core.config import Config
from autoranger.components.core.hyper import Setting


def numbers(config: Mapping[str, Any]) -> dict[str, Setting]:
    """All numbers of a config as plain data but its learning rate; those of a component are `id.name`."""
    values = Config().to_dict() | dict(config)
    beta1, beta2 = values["betas"]
    own = {"weight_decay": values["weight_decay"], "beta1": beta1, "beta2": beta2, "eps": values["eps"]}
    given = {name: settings for name, settings in values["components"].items() if isinstance(settings, Mapping)}
    return own | {f"{name}.{key}": value for name, settings in given.items() for key, value in settings.items()}


def unusual(config: Mapping[str, Any], base: Config | None = None) -> dict[str, Setting]:
    """The numbers of a config that are not the usual ones.

    Args:
        config: as plain data. Components that are not registered have no usual numbers.
        base: its betas, eps and weight decay are the usual ones; those of `Config()` if None.
    """
    usual = numbers((base or Config()).to_dict())
    for name in config.get("components", ()):
        if name in registry:
            usual |= {f"{name}.{key}": hyper.default for key, hyper in registry[name].hypers.items()}
    return {name: value for name, value in numbers(config).items() if value != usual.get(name)}


def with_numbers(config: Config, changed: Mapping[str, Any]) -> Config:
    """The config with other numbers; names of what it does not have are ignored."""
    every = {**numbers(config.to_dict()), **changed}
    components = {
        name: {key: every[f"{name}.{key}"] for key in settings} for name, settings in config.components.items()
    }
    betas = (every["beta1"], every["beta2"])
    return replace(config, weight_decay=every["weight_decay"], eps=every["eps"], betas=betas, components=components)

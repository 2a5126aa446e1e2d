"""Samplers for Optuna studies, ours and Optuna's, by name.

>>> import optuna
>>> optuna.logging.set_verbosity(optuna.logging.ERROR)
>>> study = optuna.create_study(direction="maximize", sampler=named("bayes", seed=0))
>>> study.optimize(lambda trial: trial.suggest_categorical("warmup", [False, True]), n_trials=12)
>>> study.sampler.recommend(study)
{'warmup': True}
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from autoranger.components.core.errors import ConfigError, unknown
from autoranger.search.commands import installs
from autoranger.search.samplers.bayes import BayesSampler
from autoranger.search.samplers.comband import ComBandSampler
from autoranger.search.samplers.combucb import CombUcbSampler
from autoranger.search.samplers.thompson import ThompsonSampler

DEFAULT = "bayes"
"""The sampler with the lowest regret on our tables (studies/08_sample_efficiency)."""


def cmaes(seed: int | None) -> BaseSampler:
    """Optuna's CMA-ES. Importing its package here fails now, not at the first proposal."""
    import_module("cmaes")
    return optuna.samplers.CmaEsSampler(seed=seed, with_margin=True)


SAMPLERS: dict[str, Callable[[int | None], BaseSampler]] = {
    "bayes": BayesSampler,
    "thompson": ThompsonSampler,
    "comband": ComBandSampler,
    "combucb": CombUcbSampler,
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "cmaes": cmaes,
    "random": optuna.samplers.RandomSampler,
}
"""Functions from a seed, or None for a random one, to a new sampler."""


def named(name: str = DEFAULT, seed: int | None = None) -> BaseSampler:
    """A new sampler by its name in `SAMPLERS`; raises ConfigError for any other, or if its package is not installed."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return SAMPLERS[name](seed)
    except ImportError as error:
        raise ConfigError(
            f"sampler '{name}' needs a package that is not installed: {installs(str(error.name))}"
        ) from None

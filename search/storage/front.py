"""The Pareto front of metric and cost, as a study of two objectives beside the search's own."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import create_trial

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.space import Space

FRONT = "-front"
"""The suffix of its name."""


def front(storage: BaseStorage, study: str) -> Study:
    """A new study beside that of a search; raises ConfigError if its name is taken."""
    name = study + FRONT
    if name in optuna.get_all_study_names(storage):
        before = optuna.load_study(study_name=name, storage=storage)
        if before.user_attrs.get("front_of") != study:
            raise ConfigError(f"study '{name}' exists, where the front would go; choose another --study.")
        optuna.delete_study(study_name=name, storage=storage)  # of this search, before it was resumed
    found = optuna.create_study(study_name=name, storage=storage, directions=["maximize", "minimize"])
    found.set_user_attr("front_of", study)
    return found


def trade_off(study: Study, space: Space, found: Sequence[tuple[Config, float, float]]) -> None:
    """Writes configs with their metric and cost into a study of the two."""
    for config, metric, cost in found:
        params, distributions = space.params(config), space.distributions_of(config)
        attrs = {"config": config.to_dict()}
        study.add_trial(
            create_trial(values=[metric, cost], params=params, distributions=distributions, user_attrs=attrs)
        )

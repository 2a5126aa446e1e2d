"""Where a command takes a config from: a file, a preset, or the study of a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoranger.components.core.config import EVIDENCE, Config, load, read
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.components.presets import PRESETS
from autoranger.search.storage.existing import find_study
from autoranger.search.storage.storage import JOURNAL


def read_source(source: str, storage: str | None = None) -> tuple[Config, Mapping[str, Any]]:
    """The config of a name, and the evidence for it, which presets do not have.

    Args:
        source: a file, else a preset, else the study of a finished search.
        storage: of the study. Default: `autoranger.journal`.

    Raises:
        ConfigError: if there is nothing of that name, or the search has not finished.
        DataError: if the file or the storage cannot be read.
    """
    if Path(source).exists():
        return read(source)
    if source in PRESETS or Path(source).suffix == ".toml":
        return load(source), {}
    if storage is None and not Path(JOURNAL).is_file():
        return load(source), {}  # which says what there is
    try:
        study = find_study(source, storage or JOURNAL)
    except (ConfigError, DataError) as error:
        if storage is not None:
            raise
        try:
            return load(source), {}
        except ConfigError as unknown:
            raise ConfigError(f"{unknown} Nor is it a study: {error}") from None
    if "outcome" not in study.user_attrs:
        raise ConfigError(f"the search of study '{source}' has not finished, so that it has no config yet.")
    outcome = dict(study.user_attrs["outcome"])
    evidence = outcome.pop(EVIDENCE, {})
    return Config.from_dict(outcome), evidence

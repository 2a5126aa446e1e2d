"""What a search writes for people who look at its study in optuna-dashboard."""

from __future__ import annotations

from collections.abc import Iterator

from optuna.storages import BaseStorage

from autoranger.search.storage.storage import writing

VERSION, PART = "dashboard:note_ver", "dashboard:note_str:"
"""Where optuna-dashboard keeps a study's note: its version, and its parts, numbered from 0."""

LONGEST = 2045
"""Characters of a part."""


def write_note(storage: BaseStorage, study: str, text: str) -> None:
    """Writes the note that optuna-dashboard shows above a study, in Markdown. One that a user has written stays."""
    with writing():
        study_id = storage.get_study_id_from_name(study)
        if VERSION in storage.get_study_system_attrs(study_id):
            return
        for name, value in parts(text):
            storage.set_study_system_attr(study_id, name, value)
        storage.set_study_system_attr(study_id, VERSION, 1)


def parts(text: str) -> Iterator[tuple[str, str]]:
    """A note as attributes."""
    for number, begin in enumerate(range(0, len(text), LONGEST)):
        yield f"{PART}{number}", text[begin : begin + LONGEST]

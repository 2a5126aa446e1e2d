"""What a search writes about itself is read back as it was, and what it has not written is one sentence."""

from __future__ import annotations

import copy
import io
import json
import math
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import pytest
import tomli_w
from optuna.storages import InMemoryStorage
from rich.console import Console

from autoranger import Config
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.report.reading import read_report
from autoranger.report.text import print_report
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.serialization import from_data, to_json
from autoranger.search.space import Space
from autoranger.search.storage.record import Record
from autoranger.search.verdict.outcome import Baseline, Comparison, Evidence, Finalist, Settings, Sweep
from autoranger.search.verdict.statistics import Difference

SETTINGS = Settings(
    task="η ± 1",
    metric="accuracy",
    steps=300,
    batch_size=32,
    lr_range=(1e-3, 1e-1),
    device="cpu",
    seed=0,
    budget=60.0,
    sampler="auto",
    objective="metric",
    cost=None,
    components=("lookahead", "of another package"),
)
PLAN = Plan(arms=8, rungs=(Rung(150, 1, 4, 99), Rung(300, 2, 2, 3)), verdict_seeds=8, steps=300)
GAIN = Difference(effect=0.1, low=0.05, high=0.15, p=0.001, seeds=8)
BASELINES = {"default": Baseline(0.03, 0.9, 0.8), "adamw": Baseline(0.01, 0.8, 0.7)}
COMPARISON = Comparison("grid", (3, 10), 2, 0.9, 0.95, 0.9, BASELINES, GAIN, GAIN, GAIN, "adamw")
COMPARED = Evidence("it beats the default", SETTINGS, PLAN, {"torch": "2.6"}, comparison=COMPARISON)
SWEPT = Evidence("no time", SETTINGS, PLAN, {}, sweep=Sweep((3, 4), (0.01, 0.03), (0.9, 0.8), None))
CONFIG = {"lr": 0.03, "components": {"of another package": {}}}
FINALIST = Finalist(CONFIG, True, ("random",), 0.95, 0.9, 0, GAIN, GAIN, cost=2.0, on_front=True)

each_evidence = pytest.mark.parametrize("evidence", [COMPARED, SWEPT], ids=["compared", "swept"])


@each_evidence
def test_a_file_and_a_study_give_back_what_was_written(evidence: Evidence, tmp_path: Path) -> None:
    Config().save(tmp_path / "x.toml", evidence.to_dict())
    assert Evidence.read(tomllib.loads((tmp_path / "x.toml").read_text(encoding="utf-8"))["evidence"]) == evidence
    assert Evidence.read(json.loads(json.dumps(evidence.to_dict()))) == evidence
    assert from_data(Finalist, to_json(asdict(FINALIST)), "finalist") == FINALIST


def test_what_is_not_finite_is_unknown_in_a_study_and_itself_in_a_file() -> None:
    once = Difference(effect=0.1, low=-math.inf, high=math.inf, p=1.0, seeds=1)
    assert from_data(Difference, tomllib.loads(tomli_w.dumps(asdict(once))), "gain") == once
    assert math.isnan(from_data(Difference, to_json(once.__dict__), "gain").low)


def places(data: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Where there is anything in nested data."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, *path, key)


def damaged(data: Any) -> Iterator[Any]:
    """The same data with one thing missing, or of another type."""
    for *path, key in places(data):
        for wrong in (None, "x", "ü\n", 3, -1.5, True, [], {}, [{}], {"x": [None]}):
            copied = copy.deepcopy(data)
            place = copied
            for step in path:
                place = place[step]
            if wrong is None:
                del place[key]
            else:
                place[key] = wrong
            yield copied


def attempt(function: Callable[[Any], Any], data: Any, error: type[Exception]) -> tuple[Any, str]:
    """What a function makes of data, or what it says."""
    try:
        return function(data), ""
    except error as refusal:
        return None, str(refusal)


@each_evidence
def test_damaged_evidence_is_read_or_refused_in_one_sentence(evidence: Evidence) -> None:
    """Every part of it, missing or of another type; what is read is as typed as ever, and can be written again."""
    refused = 0
    for data in damaged(to_json(evidence.to_dict())):
        found, words = attempt(Evidence.read, data, ConfigError)
        if found is None:
            refused += 1
            assert words.startswith("evidence")
            assert words.endswith(".")
            assert "\n" not in words
        else:
            assert Evidence.read(tomllib.loads(tomli_w.dumps(found.to_dict()))) == found
    assert refused > 200


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "evidence is 3, but must be a table."),
        ({}, "evidence.verdict is missing."),
        ({"verdict": 1}, "evidence.verdict is 1, but must be a text."),
        ({"verdict": "", "settings": asdict(SETTINGS) | {"seed": True}}, "seed is True, but must be a whole"),
        (
            {"verdict": "", "settings": asdict(SETTINGS) | {"lr_range": [1]}},
            "lr_range has 1 entries, but must",
        ),
    ],
)
def test_the_sentence_says_where(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        Evidence.read(data)


def test_a_damaged_study_is_said_to_be() -> None:
    """Whatever is wrong with its attributes, a report reads it or says so."""
    attributes = {
        "settings": asdict(SETTINGS),
        "opening": "grid",
        "finalists": [asdict(FINALIST)],
        "spent": {"seconds": 1.0, "work": 7, "rounds": []},
        "outcome": CONFIG | {"evidence": COMPARED.to_dict()},
    }
    shown = refused = 0
    for number, data in enumerate(damaged(to_json(attributes))):
        study = optuna.create_study(study_name=str(number), storage=InMemoryStorage())
        for name, value in data.items():
            study.set_user_attr(name, value)
        found, words = attempt(lambda study: read_report(study, "here"), study, DataError)
        if found is None:
            refused += 1
            assert words.startswith(f"study '{number}' is damaged or of another version: ")
        else:
            shown += 1
            json.dumps(found.to_dict(), allow_nan=False)
            print_report(Console(file=io.StringIO()), found)
    assert shown > 50
    assert refused > 300


@pytest.mark.parametrize("table", ["3", "[]", "{ verdict = 'good', plan = { steps = 3 } }", "{ seeds = 'all' }"])
def test_evidence_from_elsewhere_is_one_sentence(table, autoranger, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text(f"evidence = {table}\nlr = 0.5\n")
    assert Config.load("x.toml").lr == 0.5
    status, out, err = autoranger("show", "x.toml")
    assert (status, err) == (0, "")
    assert ("The file's evidence is not of this version's search: evidence" in out) == (table != "[]")
    assert "lr 0.5" in out


def test_a_study_with_other_kinds_of_settings_is_not_resumed() -> None:
    storage, space = InMemoryStorage(), Space()
    Record(storage, "s", space, {"task": "x"}, resume=False).close()
    with pytest.raises(ConfigError, match="study 's' was made by another version of autoranger; choose another"):
        Record(storage, "s", space, {"task": "x", "seed": 0}, resume=True)

"""Searches seen from outside: a list of them, one that runs, one that was interrupted, and Optuna's dashboard."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from autoranger import Config
from autoranger.search.race.plan import ENTRANTS, PROTECTED, make_plan
from autoranger.search.storage.existing import find_study, searches
from autoranger.search.storage.notes import LONGEST, parts, write_note
from autoranger.search.storage.process import this_process
from autoranger.search.storage.sittings import SEARCHING, Sitting, State, state
from autoranger.search.storage.storage import open_storage

ROOT = Path(__file__).parents[1]

TASK = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.toy import Toy

class Mine(Toy):
    name, steps, lr_range = "mine", STEPS, (1e-2, 1e-2)
"""

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CXX": "none-in-this-test"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("mine.py").write_text(TASK.replace("STEPS", "4"))
    Path("long.py").write_text(TASK.replace("STEPS", "400"))
    return tmp_path


@contextmanager
def begun(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A search in a process of its own, in its first round."""
    command = [sys.executable, "-m", "autoranger", "search", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stderr is not None
    try:
        next(line for line in process.stderr if line.startswith("round 1"))
        yield process
    finally:
        process.kill()
        process.wait()


def test_one_that_runs_is_told_from_one_that_was_interrupted(autoranger: Callable[..., tuple[int, str, str]]) -> None:
    with begun("--task", "long.py", "--study", "a b") as process:
        while not find_study("a b", "autoranger.journal").get_trials(deepcopy=False):
            time.sleep(0.1)
        seen = json.loads(autoranger("watch", "--json")[1])
        text = autoranger("watch")[1]
        process.send_signal(signal.SIGINT)
        process.wait()
    assert seen["state"] == "running"
    assert seen["stages"][0]["done"] > 0
    assert 0 < seen["share"] < 1
    assert seen["leaders"][0]["value"] == max(leader["value"] for leader in seen["leaders"])
    assert "Running, in round 1 of 3" in text
    assert "autoranger watch 'a b'" in text
    assert max(map(len, text.splitlines())) <= 80
    for command in ("watch", "report"):
        said = autoranger(command)[1]
        assert "Interrupted in round 1 of 3" in said
        assert [line for line in said.splitlines() if line.endswith("search --task long.py --study 'a b' --resume")]
    (sitting,) = json.loads(autoranger("watch", "--json")[1])["sittings"]
    assert sitting["ended"] >= sitting["began"]
    assert "cores" in sitting["machine"]


def test_searches_are_listed_and_what_they_found_is_used_by_name(
    autoranger: Callable[..., tuple[int, str, str]],
) -> None:
    assert autoranger("studies")[0] == 1, "no storage yet"
    for name in ("first", "second"):
        assert autoranger("search", "--task", "mine.py", "--study", name, "--sampler", "random", "--quiet")[0] == 0
    listed = json.loads(autoranger("studies", "--json")[1])
    assert list(listed) == ["second", "first"], "the latest first"
    assert {found["state"] for found in listed.values()} == {"finished"}
    config = Config.load("tuned.toml")
    assert re.search(rf"second +\d{{4}}-.* finished +.*lr {config.lr:g}", autoranger("studies")[1])
    assert json.loads(autoranger("report", "--json")[1])["study"] == "second"
    shown = json.loads(autoranger("show", "second", "--json")[1])
    assert shown.pop("evidence")
    assert Config.from_dict(shown) == config
    command = ("compare", "second", "sgd", "--task", "mine.py", "--seeds", "2", "--no-sweep", "--json", "--quiet")
    sides = {side["name"]: side["config"] for side in json.loads(autoranger(*command)[1])["sides"]}
    assert Config.from_dict(sides["second"]) == config
    code, _, err = autoranger("show", "thrid")
    assert code == 2
    assert "unknown preset 'thrid'" in err
    assert "first" in err


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"outcome": {}, SEARCHING: None}, State.FINISHED),
        ({"failure": "x", SEARCHING: None}, State.FAILED),
        ({"failure": "x", SEARCHING: this_process()}, State.RUNNING),
        ({SEARCHING: None}, State.INTERRUPTED),
        ({SEARCHING: f"{socket.gethostname()} {2**22 + 1} 1"}, State.INTERRUPTED),
        ({SEARCHING: "elsewhere 1 1"}, State.ELSEWHERE),
    ],
)
def test_how_it_stands_with_a_search(facts: dict[str, Any], expected: State) -> None:
    study = optuna.create_study()
    for name, fact in facts.items():
        study.set_user_attr(name, fact)
    assert state(study) is expected


def test_the_sizes_of_rounds_are_those_that_cost() -> None:
    plan = make_plan(100)
    assert plan.sizes(256, 5) == [(256 + ENTRANTS) * 5, (85 + PROTECTED) * 3, (21 + PROTECTED) * 2]
    assert plan.sizes(2, 5) == [(2 + ENTRANTS) * 5, (2 + PROTECTED) * 3, (2 + PROTECTED) * 2]
    costs = [size * rung.seeds * rung.steps for size, rung in zip(plan.sizes(256, 5), plan.rungs, strict=True)]
    rest = sum(size * seeds * 100 for size, seeds in plan.refine.parts) + (4 + 4 + PROTECTED) * 32 * 100
    assert plan.cost(256, 5) == sum(costs) + rest
    assert plan.cost(21, 5, first=2) == (21 + PROTECTED) * 2 * 6 * 100 + rest


def test_the_time_of_a_sitting() -> None:
    assert Sitting("2026-01-01T12:00:00+01:00", "2026-01-01T12:01:30+00:00", "", "").seconds == 3690
    assert Sitting("2026-01-01T12:00:00+01:00", None, "", "").seconds is None


def test_a_long_note_is_cut_into_parts() -> None:
    text = "x" * LONGEST + "y"
    assert dict(parts(text)) == {"dashboard:note_str:0": "x" * LONGEST, "dashboard:note_str:1": "y"}


@contextmanager
def dashboard(storage: str) -> Iterator[Callable[[str], Any]]:
    """A function that asks the dashboard's API, which runs in a process of its own."""
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed; make test installs it")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = "from optuna_dashboard._cli import main; main()"
    command = [sys.executable, "-c", code, storage, "--port", str(port), "--host", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=30) as answer:
            return json.load(answer)

    try:
        for _ in range(300):
            try:
                ask("meta")
                break
            except OSError:
                time.sleep(0.1)
        yield ask
    finally:
        process.kill()
        process.wait()


def test_optuna_dashboard_tells_the_same_story(autoranger: Callable[..., tuple[int, str, str]]) -> None:
    assert autoranger("search", "--task", "mine.py", "--study", "s")[0] == 0
    (study,) = searches("autoranger.journal")
    exported, merits = replace(Config.load("tuned.toml"), proxy={}), {}
    for finalist in study.user_attrs["finalists"]:
        merits[replace(Config.from_dict(finalist["config"]), proxy={})] = finalist["valid"]
    with dashboard("autoranger.journal") as ask:
        (summary,) = ask("studies")["study_summaries"]
        detail = ask(f"studies/{summary['study_id']}")
        (importances,) = ask(f"studies/{summary['study_id']}/param_importances")["param_importances"]
    trials = detail["trials"]
    attributes = [{a["key"]: a["value"] for a in trial["user_attrs"]} for trial in trials]  # long ones are cut
    configs = {t.number: Config.from_dict(t.user_attrs["config"]) for t in study.get_trials(deepcopy=False)}
    found = [(trial, noted, configs[trial["number"]]) for trial, noted in zip(trials, attributes, strict=True)]

    # The trial table: readable names, a value for whatever did not fail, and the verdict.
    assert all(noted["name"] for noted in attributes)
    assert all(trial["values"] for trial in trials if trial["state"] != "Fail")
    assert {trial["state"] for trial in trials} <= {"Complete", "Pruned", "Fail"}
    verdicts = {config: (noted["verdict"], trial["values"]) for trial, noted, config in found if "verdict" in noted}
    assert {config: value for config, (_, (value,)) in verdicts.items()} == pytest.approx(merits)
    assert [config for config, (role, _) in verdicts.items() if role == "exported"] == [exported]

    # History: the best trial is what was exported; the last intermediate value is the value.
    complete = [(trial["values"][0], config) for trial, _, config in found if trial["state"] == "Complete"]
    assert max(complete, key=lambda pair: pair[0])[1] == exported
    assert all(t["intermediate_values"][-1]["value"] == pytest.approx(t["values"][0]) for t in trials if t["values"])
    assert all(trial["datetime_complete"] > trial["datetime_start"] for trial in trials)

    # Slice and importance: every parameter of the space, over most of the candidates.
    assert len(complete) > len(trials) / 4
    assert {row["name"] for row in importances} == {parameter["name"] for parameter in detail["union_search_space"]}
    assert "fresh seeds" in detail["note"]["body"]
    assert "autoranger report s" in detail["note"]["body"]


def test_a_note_of_the_users_stays() -> None:
    storage = open_storage("x.journal")
    study = optuna.create_study(storage=storage, study_name="s")
    for text in ("mine", "other"):
        write_note(storage, "s", text)
    assert storage.get_study_system_attrs(study._study_id)["dashboard:note_str:0"] == "mine"

"""Searches with workers: processes, threads and others that join, whatever becomes of them."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from autoranger import Config, ConfigError, DataError, Task, cli
from autoranger.search.crew import crew as crews
from autoranger.search.crew.batch import Batch, Trained, Training
from autoranger.search.crew.crew import Crew, engine, halves
from autoranger.search.engine import board as boards
from autoranger.search.engine.board import Board
from autoranger.search.engine.engine import Lost
from autoranger.search.engine.inline import Inline
from autoranger.search.engine.member import Member
from autoranger.search.engine.pool import Pool
from autoranger.search.engine.process import can_fork
from autoranger.search.joining import join
from autoranger.search.population import Population
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.serialization import to_json
from autoranger.search.space import Space
from autoranger.search.storage.storage import existing_storage, open_storage
from autoranger.search.study import search
from autoranger.search.tasks import create

CONFIGS = [Config.preset(name, lr=lr) for name in ("ranger21", "adamw") for lr in (1e-3, 1e-2, 1e-1, 1e6)]
SPACE = Space(("gradient_centralization", "lookahead"))
PLAN = Plan(4, (Rung(5, 1, 2, 99), Rung(10, 2, 1, 2)), 8, 10)

TASK = """
import time
import torch
from torch import nn
from autoranger import Task

class Blobs(Task):
    name = "blobs"
    batch_size, steps = 8, 10
    def data(self):
        generator = torch.Generator().manual_seed(0)
        y = torch.arange(120) % 3
        x = torch.randn(120, 4, generator=generator) + 2.0 * torch.eye(3, 4)[y]
        return {"train": (x[:60], y[:60]), "valid": (x[60:90], y[60:90]), "test": (x[90:], y[90:])}
    def model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
"""

REFUSED = """
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 3)
    def forward(self, x):
        return self.last(self.inner(x[..., None])[0][:, -1])

class Sequences(Blobs):
    name = "sequences"
    def model(self):
        return Recurrent()
"""

SLOW = """
class Slow(nn.ReLU):
    def forward(self, x):
        time.sleep(0.05)
        return super().forward(x)
"""


@pytest.fixture
def task(tmp_path) -> Task:
    (tmp_path / "blobs.py").write_text(TASK)
    return create(str(tmp_path / "blobs.py"), "cpu", None)


def storage(tmp_path):
    return open_storage(str(tmp_path / "journal"))


def found(tmp_path, task, name, **options):
    """The exported config and evidence of a small search, and its trials."""
    with closing(engine(task, "metric", **options)) as crew:
        outcome = search(task, storage(tmp_path), name, space=SPACE, plan=PLAN, engine=crew)
    trials = optuna.load_study(study_name=name, storage=storage(tmp_path)).trials
    rounds = {json.dumps(trial.user_attrs["config"]): trial.user_attrs["rounds"] for trial in trials}
    assert len(rounds) == len(trials)
    return outcome.config, to_json(outcome.evidence.to_dict()["comparison"]), rounds


# chunks


def test_batches_and_results_survive_json():
    batch = Batch(tuple(CONFIGS), (1, 2), 10, ("valid", "test"), 3)
    assert Batch.from_data(to_json(batch.to_data())) == batch
    scores = {"valid": np.array([[0.5, np.nan]]), "curve": np.array([[[0.1, 0.2], [np.nan, 1.0]]])}
    again = Trained.from_data(to_json(Trained(scores, {0: "diverged"}, "").to_data()))
    assert again.failures == {0: "diverged"}
    for name, values in scores.items():
        np.testing.assert_array_equal(again.scores[name], values)


def test_halves_are_the_whole():
    batch = Batch(tuple(CONFIGS[:5]), (1,), 10, ("valid",))
    first, second = halves(batch)
    assert first.configs + second.configs == batch.configs
    assert abs(len(first.configs) - len(second.configs)) == 1


def test_worker_processes_train_as_this_process_does(task):
    objective = "loss"
    with closing(engine(task, objective, workers=2)) as crew:
        there = Crew(Training(task, objective).prepare(0), crew)
        here = Training(task, objective).prepare(0)
        heard = list[int]()
        scores = there.train(CONFIGS, [3, 4], 8, splits=("valid", "test"), curve=2, progress=heard.append)
    expected = here.train(CONFIGS, [3, 4], 8, splits=("valid", "test"), curve=2)
    assert scores.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, atol=1e-6, err_msg=name)
    assert there.failures == here.failures
    assert there.failures, "a rate of a million diverges"
    assert sum(heard) == len(CONFIGS) * 2 * 8


@pytest.mark.filterwarnings("ignore:.*trains one by one")
@pytest.mark.parametrize(("kind", "asked", "others"), [("Sequences", None, 2), ("Sequences", 1, 0), ("Blobs", None, 0)])
def test_models_that_vmap_refuses_train_in_processes(tmp_path, monkeypatch, kind, asked, others):
    monkeypatch.setattr(crews, "usual", lambda: 2)
    (tmp_path / "blobs.py").write_text(TASK + REFUSED)
    task = create(f"{tmp_path / 'blobs.py'}:{kind}", "cpu", None)
    with closing(engine(task, "metric", workers=asked)) as pool:
        crew = Crew(Population(task), pool)
        scores = [crew.train(CONFIGS[:4], [seed], 8)["valid"] for seed in (3, 4)]
        assert pool.others == len(pool.workers) == others
    np.testing.assert_allclose(
        scores, [Population(task).train(CONFIGS[:4], [s], 8)["valid"] for s in (3, 4)], atol=1e-6
    )


class Faulty:
    """An engine that loses what it is given as often as it is told, and then does it here."""

    size = others = 1
    exchange = Pool([]).exchange

    def __init__(self, work, times, *, away=False):
        self.work, self.times, self.away = work, times, away
        self.given = []

    def run(self, items, listener):
        for item in items:
            self.given.append(len(item.configs))
            listener.begun(item)
            listener.reported(item, 3)
            if len(self.given) <= self.times:
                yield item, Lost("its process ended: SIGKILL", 0.1, self.away)
            else:
                yield item, self.work(item, 0, lambda told: None)


@pytest.mark.parametrize(
    ("times", "away", "given"),
    [(1, False, [4, 4]), (2, False, [4, 4, 2, 2]), (3, True, [4, 4, 4, 4])],
    ids=["once", "twice", "gone three times"],
)
def test_a_chunk_whose_worker_is_lost_is_trained_again(task, times, away, given):
    faulty, population, progress = Faulty(Training(task, "metric"), times, away=away), Population(task), list[int]()
    scores = Crew(population, faulty).train(CONFIGS[:4], [0], 8, progress=progress.append)["valid"]
    np.testing.assert_allclose(scores, population.train(CONFIGS[:4], [0], 8)["valid"], atol=1e-6)
    assert faulty.given == given
    assert sum(progress) == 4 * 8


def test_a_candidate_that_ends_every_process_has_failed(task):
    crew = Crew(Population(task), Faulty(Training(task, "metric"), 99))
    assert np.isnan(crew.train(CONFIGS[:2], [0], 8)["valid"]).all()
    assert set(crew.failures.values()) == {"its process ended: SIGKILL"}


# workers that join


def member(tmp_path, task, name):
    """A worker in a thread of this process."""
    joined = Member(storage(tmp_path), name, Batch.from_data, Inline(Training(task, "metric")))
    thread = threading.Thread(target=joined.serve)
    thread.start()
    return joined, thread


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(boards, "LOOK", 0.05)
    monkeypatch.setattr(boards, "ASK", 0.05)


@pytest.mark.usefixtures("hurried")
def test_a_worker_that_joins_does_its_share(tmp_path, task):
    board, population = Board(storage(tmp_path), "s", Trained.from_data), Population(task)
    joined, thread = member(tmp_path, task, "s")
    with closing(Pool([board])) as pool:
        while not pool.others:
            time.sleep(0.05)
        scores = Crew(population, pool).train(CONFIGS, [0, 1], 8)["valid"]
    thread.join(10)
    assert not thread.is_alive(), "it ends with the search"
    assert joined.done >= 1
    np.testing.assert_array_equal(scores, population.train(CONFIGS, [0, 1], 8)["valid"])


@pytest.mark.usefixtures("hurried")
def test_a_search_notices_between_two_chunks_that_somebody_has_joined(tmp_path, task):
    population = Population(task, rows=1)
    with closing(engine(task, "metric", board=Board(storage(tmp_path), "s", Trained.from_data))) as pool:
        crew, threads, parts = Crew(population, pool), [], list[int]()

        def report(part, scores):
            parts.append(len(part))
            if not threads:
                threads.extend(member(tmp_path, task, "s"))
                while not pool.others:
                    time.sleep(0.05)

        scores = crew.train(CONFIGS, [0], 8, report=report)["valid"]
    threads[1].join(10)
    assert sum(parts) == len(CONFIGS)
    assert threads[0].done >= 1
    np.testing.assert_allclose(scores, population.train(CONFIGS, [0], 8)["valid"], atol=1e-6)


@pytest.mark.usefixtures("hurried")
def test_what_a_worker_had_that_is_gone_goes_to_another(tmp_path, task, monkeypatch):
    monkeypatch.setattr(boards, "SILENT", 1.0)
    opened = storage(tmp_path)
    lost = opened.create_new_trial(
        boards.board(opened, "s"),
        optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs={"process": "elsewhere 1 -"}),
    )
    opened.set_trial_user_attr(lost, "beat", {"count": 1, "number": 0, "told": []})
    board = Board(opened, "s", Trained.from_data)
    (mailbox,) = board.recruit(1)
    assert mailbox.hear() == []
    opened.set_trial_user_attr(lost, "beat", {"count": 2, "number": 0, "told": []})
    time.sleep(0.1)
    assert [type(message).__name__ for message in mailbox.hear()] == ["Ready"]
    mailbox.give(Batch((CONFIGS[0],), (0,), 5, ("valid",)))
    time.sleep(1.2)
    with pytest.raises(EOFError):
        mailbox.hear()
    assert mailbox.end() == "nothing has been heard of it for some time"
    assert opened.get_trial(lost).state.is_finished()


def test_a_worker_that_could_not_be_asked_is_not_gone(tmp_path, monkeypatch):
    """As where the database has been away for longer than a worker may be silent."""
    opened, now = storage(tmp_path), [1000.0]
    running = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs={"process": "elsewhere 1 -"})
    opened.create_new_trial(boards.board(opened, "s"), running)
    monkeypatch.setattr(boards, "time", SimpleNamespace(monotonic=lambda: now[0]))
    (mailbox,) = Board(opened, "s", Trained.from_data).recruit(1)
    assert mailbox.hear() == []
    now[0] += 2 * boards.SILENT
    assert mailbox.hear() == []
    for _ in range(int(boards.SILENT / boards.BEAT) - 2):
        now[0] += boards.BEAT
        assert mailbox.hear() == []
    now[0] += 3 * boards.BEAT
    mailbox.hear()
    now[0] += boards.BEAT
    with pytest.raises(EOFError):
        mailbox.hear()


def test_only_those_who_have_the_task_may_join(tmp_path, task):
    opened = storage(tmp_path)
    with pytest.raises(ConfigError, match="no study 's' to join"):
        join(opened, "s")
    study = optuna.create_study(study_name="s", storage=opened)
    with pytest.raises(ConfigError, match="was not made by autoranger"):
        join(opened, "s")
    found(tmp_path, task, "t")
    with pytest.raises(ConfigError, match="is finished"):
        join(opened, "t")
    settings = optuna.load_study(study_name="t", storage=opened).user_attrs["settings"]
    study.set_user_attr("settings", settings)
    with pytest.raises(ConfigError, match="begun in Python; name its task"):
        join(opened, "s")
    other = tmp_path / "other.py"
    other.write_text(TASK.replace("2.0 * torch.eye", "2.5 * torch.eye"))
    with pytest.raises(ConfigError, match="its train data and its valid data and its test data differ"):
        join(opened, "s", spec=str(other))
    join(opened, "s", spec=task.origin.spec).close()


# whole searches


def test_a_search_is_the_same_whoever_trains(tmp_path, task):
    alone = found(tmp_path, task, "alone")
    others = found(tmp_path, task, "processes", workers=2)
    assert others[2] == alone[2]
    assert others == alone


GATED = """
class Gated(nn.ReLU):
    \"\"\"Waits as long as there is a file that the variable HOLD names; for a moment if it says "slow".\"\"\"
    def forward(self, x):
        held = Path(os.environ.get("HOLD", "nothing"))
        while held.exists():
            time.sleep(0.02)
            if held.exists() and held.read_text() == "slow":
                break
        return super().forward(x)
"""


def command(log, hold, *words):
    """The command line in a fork of this process, which spares it the import of torch."""

    log.touch()

    def run():
        os.environ["HOLD"] = hold
        sys.stdout = sys.stderr = log.open("w", buffering=1, encoding="utf-8")
        sys.argv = ["autoranger", *words]
        cli.main()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def until(condition, *processes):
    """Waits for something, as long as processes run."""
    while not condition():
        time.sleep(0.05)
        assert all(process.is_alive() for process in processes)


@pytest.mark.skipif(not can_fork(), reason="forks")
def test_workers_of_the_command_line_join_and_are_killed(tmp_path, task, monkeypatch, autoranger):
    """A search of the command line, with a worker that is killed and one that stays, finds what it finds alone."""
    monkeypatch.chdir(tmp_path)
    gated = TASK.replace("blobs", "gated").replace("nn.ReLU()", "Gated()")
    Path("gated.py").write_text("import os\nfrom pathlib import Path\n" + gated + GATED)
    plain = ("search", "--task", "gated.py", "--space", "lookahead")
    name = ("--study", "s", "--storage", "shared.journal")
    log, of_victim, of_other = (tmp_path / f"{whose}.log" for whose in ("search", "victim", "other"))

    def begun():
        with suppress(KeyError, DataError):
            return "settings" in optuna.load_study(study_name="s", storage=existing_storage(name[-1])).user_attrs

    searching = command(log, "search-held", *plain, *name, "--out", "tuned.toml")
    until(begun, searching)
    Path("search-held").touch()
    victim = command(of_victim, "victim-held", "worker", *name)
    until(lambda: "joined" in of_victim.read_text(), searching, victim)
    Path("victim-held").touch()
    Path("search-held").write_text("slow")  # or the search ends before it has seen that there is a worker
    until(lambda: "item 1" in of_victim.read_text(), searching, victim)
    Path("search-held").unlink()
    stays = command(of_other, "never", "worker", *name)
    until(lambda: "joined" in of_other.read_text(), searching, victim, stays)
    victim.kill()
    for process, said in ((searching, log), (stays, of_other)):
        process.join(120)
        assert process.exitcode == 0, said.read_text()
    assert "the search is over" in of_other.read_text()
    assert autoranger(*plain, "--out", "alone.toml")[0] == 0
    assert Config.load("tuned.toml") == Config.load("alone.toml")

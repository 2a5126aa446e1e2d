"""Studies in a PostgreSQL server: searched, resumed, reported, without a word of the password, and while it is away.

The server is a real one, started here on loopback as a user of its own. It needs PostgreSQL's programs (Debian's
package postgresql has them).
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from autoranger.components.core.errors import DataError
from autoranger.search.storage import database
from autoranger.search.storage.database import open_database, shown
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from tests import toy
from tests.test_search import PLAN, SMALL

PASSWORD = "rather/secret"

PROGRAMS = [Path(path) for path in sorted(glob.glob("/usr/lib/postgresql/*/bin"))]


class Server:
    """A PostgreSQL server with one database, on a free port of loopback.

    Args:
        programs: the folder of its programs.
        folder: for its files. It is removed at the end.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        # The server refuses to run as root.
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        folder.mkdir()
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            shutil.chown(path, self.user)
        self.run("initdb", "-D", folder / "data", "-U", "team", "-A", "scram-sha-256", f"--pwfile={folder}/password")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()
        url = f"postgresql+psycopg://team:rather%2Fsecret@127.0.0.1:{self.port}/postgres"
        self.url, self.shown = url, url.replace("rather%2Fsecret", "***")

    def run(self, program: str, *words: object) -> None:
        """Runs one of its programs as its user."""
        subprocess.run(
            [self.programs / program, *map(str, words)],
            check=True,
            user=self.user if os.getuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
        )

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-o", options, "-l", self.folder / "log", "start")

    def stop(self) -> None:
        """Ends it at once, with all connections."""
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if not PROGRAMS:
        pytest.skip("PostgreSQL is not installed")
    folder = Path("/tmp") / f"postgresql-{os.getpid()}-{time.monotonic_ns()}"  # pytest's own is closed to other users
    server = Server(PROGRAMS[-1], folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def test_a_search_in_a_database_is_the_same_as_in_a_journal(server: Server, tmp_path: Path) -> None:
    outcomes = [
        search(toy.Toy(), open_storage(place), "same", space=SMALL, plan=PLAN)
        for place in (server.url, str(tmp_path / "j"))
    ]
    assert outcomes[0].config == outcomes[1].config
    trials = [optuna.load_study(study_name="same", storage=open_storage(server.url)).trials]
    trials += [optuna.load_study(study_name="same", storage=open_storage(str(tmp_path / "j"))).trials]
    assert [(t.state, t.values, t.user_attrs) for t in trials[0]] == [
        (t.state, t.values, t.user_attrs) for t in trials[1]
    ]


def test_a_database_that_is_away_for_a_while_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAUSE", 0.05)
    storage = open_storage(server.url)
    study = optuna.create_study(study_name="away", storage=storage)
    server.stop()
    threading.Timer(1.0, server.start).start()
    with pytest.warns(UserWarning, match="the database does not answer .*; waiting for it"):
        study.tell(study.ask(), 1.0)
    for number in range(20):
        if number == 10:  # between a trial and its value
            server.stop()
            server.start()
        trial = study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study.tell(trial, float(number))
    assert [t.value for t in study.trials if t.state == TrialState.COMPLETE] == [1.0, *map(float, range(20))]


def test_a_database_that_stays_away_is_told_of_with_what_to_do(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.2)
    storage = open_storage(server.url)
    server.stop()
    try:
        with (
            pytest.warns(UserWarning, match="waiting"),
            pytest.raises(DataError, match=r"has not answered for 0 s .*; see"),
        ):
            storage.get_all_studies()
    finally:
        server.start()
    assert isinstance(storage.get_all_studies(), list)


def test_no_message_report_or_study_has_the_password(server: Server, autoranger, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    task = f"{toy.__file__}:Toy"
    said = autoranger("search", "--task", task, "--budget", "3s", "--storage", server.url, "--study", "hush")
    assert said[0] == 0, said
    told = [*said[1:]]
    for words in (
        f"report hush --storage {server.url} --out page",
        f"report absent --storage {server.url}",
        f"search --task {task} --storage {server.url} --study hush",
        f"search --task {task} --storage={server.url} --study hush --resume",
        f"report hush --storage {server.url.replace('rather', 'wrong')}",
        f"report hush --storage {server.url.replace('127.0.0.1', '127.0.0.1x')}?password=rather%2Fsecret",
        f"report hush --storage {server.url.replace('psycopg', 'unknown')}",
    ):
        told += autoranger(*words.split())[1:]
    told += [path.read_text() for path in (tmp_path / "page").iterdir() if path.suffix != ".png"]
    told += [Path("tuned.toml").read_text()]
    storage = open_storage(server.url)
    told += [str(study.user_attrs) for study in storage.get_all_studies()]
    assert server.shown in "".join(told)
    assert not [text for text in told if "rather" in text or "secret" in text.replace("secrets", "")]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("autoranger.journal", "autoranger.journal"),
        ("sqlite:///team.db", "sqlite:///team.db"),
        ("postgresql://me:pw@host:5432/db", "postgresql://me:***@host:5432/db"),
        (
            "postgresql://me@host/db?password=pw&sslmode=require",
            "postgresql://me@host/db?password=hidden&sslmode=require",
        ),
        ("postgresql://me:pw@host:port/db", "postgresql://…"),
    ],
)
def test_a_storage_is_shown_without_its_password(place: str, expected: str) -> None:
    assert shown(place) == expected


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "MySQLdb", None)
    with pytest.raises(
        DataError, match=r"databases of the kind mysql need the package MySQLdb.*pip install mysqlclient"
    ):
        open_database("mysql://me:pw@host/db")

"""What is trained is neither lost nor doubled nor mixed: journals, locks, signals, resumed searches, awkward places."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from io import BytesIO, TextIOWrapper
from pathlib import Path

import optuna
import pytest
import sqlalchemy
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from optuna.trial import TrialState

from autoranger import Config, terminal
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.components.core.files import write_whole
from autoranger.search.population import Population
from autoranger.search.progress import Progress
from autoranger.search.storage import journal as journals
from autoranger.search.storage.fingerprint import checksum
from autoranger.search.storage.journal import Journal, Lock
from autoranger.search.storage.process import birth, ended, host, this_process, undisturbed
from autoranger.search.storage.record import Record
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from autoranger.search.tasks import split
from autoranger.terminal import Interrupted, interruptible, patience, streams
from tests import toy
from tests.test_search import PLAN, SMALL


def records(count: int) -> list[dict]:
    """What Optuna writes for a study with attributes."""
    study = {"op_code": 0, "worker_id": "w", "study_name": "s", "directions": [2]}
    return [study, *({"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {f"a{i}": i}} for i in range(count))]


def attributes(path: Path) -> dict:
    """The attributes of the study as Optuna's own backend reads them."""
    return optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path)))).user_attrs


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "j"
    path.touch()
    Journal(path).append_logs(records(3))
    return path


# journals


def test_a_record_that_is_cut_off_anywhere_costs_itself_alone(path):
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        assert len(list(Journal(path).read_logs(0))) == 3
        Journal(path).append_logs(records(4)[-1:])
        complete = length == len(whole) - 1  # it lacked its line's end and nothing else
        assert attributes(path) == {"a0": 0, "a1": 1, "a3": 3} | ({"a2": 2} if complete else {})


def test_what_a_power_cut_leaves_in_a_block_is_taken_away(path):
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    Journal(path).append_logs(records(4)[-1:])
    assert attributes(path) == {"a0": 0, "a1": 1, "a2": 2, "a3": 3}


def test_a_full_disk_leaves_the_journal_as_it_was(path, monkeypatch):
    before = path.read_bytes()

    def half(file, content):
        file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journals, "write", half)
    with pytest.raises(DataError, match="No space left on device; see to it, then continue with --resume"):
        Journal(path).append_logs(records(4)[-1:])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path], "no lock is left"


def test_a_damaged_line_is_named(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b'{"op_co' + lines[2], lines[3]]))
    with pytest.raises(DataError, match="line 2 of the journal"):
        open_storage(str(path))


@pytest.mark.parametrize(
    ("content", "words"), [(b'{"a": 1}\n', "line 1"), (b"text", "not a journal"), (b"SQLite format 3\0", "SQLite")]
)
def test_what_is_no_journal_is_not_touched(tmp_path, content, words):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_storage(str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="devices are files there")
def test_a_device_is_no_journal():
    with pytest.raises(DataError, match="is not a file"):
        open_storage(os.devnull)


def test_writers_side_by_side_lose_nothing(path):
    def work(worker: int) -> None:
        mine = Journal(path)
        for i in range(20):
            mine.append_logs([{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {f"{worker}-{i}": i}}])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(attributes(path)) == 3 + 80
    assert list(path.parent.iterdir()) == [path]


# locks


@pytest.mark.parametrize("kind", [JournalFileSymlinkLock, JournalFileOpenLock])
def test_optunas_locks_and_ours_exclude_each_other(path, kind):
    theirs, order = kind(str(path)), []
    theirs.acquire()

    def wait() -> None:
        with Lock(path):
            order.append("ours")

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    order.append("theirs")
    theirs.release()
    thread.join()
    assert order == ["theirs", "ours"]
    with Lock(path), pytest.raises(FileExistsError):
        os.symlink(path, f"{path}.lock")


def test_the_lock_of_a_dead_process_is_free_at_once(path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = f"{host()} {process.pid} {birth(process.pid) or '-'}"
    assert not ended(owner)
    process.communicate()
    assert ended(owner)
    Path(f"{path}.lock").write_text(owner)
    began = time.monotonic()
    with Lock(path):
        assert time.monotonic() - began < 1
    assert not Path(f"{path}.lock").exists()


@pytest.mark.parametrize("target", ["nowhere", "j"])
def test_a_lock_that_is_left_behind_without_a_name_is_removed_after_a_while(path, target, monkeypatch):
    monkeypatch.setattr(journals, "GRACE", 0.3)
    os.symlink(target, f"{path}.lock")
    with Lock(path):
        pass
    assert not os.path.lexists(f"{path}.lock")


def test_a_place_without_links_will_do(path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "a required privilege is not held")

    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(os, "link", refuse)
    storage = open_storage(str(path))
    optuna.create_study(study_name="t", storage=storage)
    assert set(optuna.get_all_study_names(storage)) == {"s", "t"}


def test_a_number_that_is_given_again_is_another_process():
    me = this_process()
    assert ended(me) in (False, None)
    name, number, born = me.split()
    assert ended(f"elsewhere {number} {born}") is None
    if born != "-":
        assert ended(f"{name} {number} {int(born) + 1}")
    assert ended("nonsense") is None


# signals


def test_a_signal_waits_for_a_write():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("signal"))
    try:
        with undisturbed():
            signal.raise_signal(signal.SIGTERM)
            seen.append("write")
        assert seen == ["write", "signal"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_who_insists_does_not_wait_for_a_write():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("signal"))
    try:
        with undisturbed(), undisturbed():
            for _ in range(4):
                signal.raise_signal(signal.SIGTERM)
            seen.append("write")
        assert seen == ["signal"] * 4 + ["write"]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(os.name != "posix", reason="the signal of a terminal")
def test_an_interrupted_transaction_does_not_lock_a_database(tmp_path, monkeypatch):
    """A signal in the middle of a write waits for its end, so that what is written afterwards has not to wait."""
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    record = Record(storage, "s", SMALL, {}, resume=False)
    create, done = storage.create_new_trial, []

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        done.append(create(*args))
        return done[-1]

    monkeypatch.setattr(storage, "create_new_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record.report(Config(lr=0.1), 10, [1], torch.ones(1).double().numpy())
    assert len(done) == 1
    record.close()
    assert [trial.state for trial in record.study.trials] == [TrialState.PRUNED]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_with_the_status_of_a_shell(name):
    number, before = getattr(signal, name), signal.getsignal(getattr(signal, name))
    with pytest.raises(Interrupted) as end, interruptible():
        signal.raise_signal(number)
    assert end.value.code == 128 + number
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_so():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_who_is_asked_to_end_keeps_what_is_in_training_unless_asked_twice():
    reached = []

    def train(*signals: int) -> None:
        with interruptible(), patience() as kept:
            kept()
            for number in signals:
                signal.raise_signal(number)
                reached.append(number)
            kept()

    for signals, heard in (((15,), [15]), ((15, 15), [15]), ((signal.SIGINT,), [])):
        reached.clear()
        with pytest.raises(Interrupted):
            train(*signals)
        assert reached == heard


class Finalized:
    """Is asked to end while Python finalizes it, where exceptions are ignored."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_is_asked_to_end_hears_it_in_a_finalizer_too(monkeypatch):

    def interrupted() -> None:
        with patience() as kept:
            Finalized(signal.SIGINT)
            kept()

    def reminded() -> None:
        with patience():
            signal.raise_signal(signal.SIGTERM)
            Finalized(signal.SIGTERM)  # as if the first reminder had come here
            time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    monkeypatch.setattr(terminal, "GRACE", 0.05)
    monkeypatch.setattr(terminal, "AGAIN", 0.05)
    with pytest.raises(Interrupted):
        reminded()


# writers that are killed


def killed(write):
    """A fork of this process that is killed while it does something."""
    child = os.fork()
    if not child:
        try:
            write()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def answered(place: str, trial: int) -> list[str]:
    """The answers in a trial, for a process that opens the storage now and writes one."""
    storage = open_storage(place)
    storage.set_trial_user_attr(trial, "later", "x")
    return sorted(storage.get_trial(trial).user_attrs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999, 1.0])
def test_a_journal_survives_a_writer_that_is_killed_within_a_write(share, tmp_path, monkeypatch):
    place = str(tmp_path / "j")
    storage = open_storage(place)
    trial = storage.create_new_trial(storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s"))
    storage.set_trial_user_attr(trial, "before", "x")

    def torn(file, content):
        file.write(content[: int(share * len(content))])
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(journals, "write", torn)
        killed(lambda: storage.set_trial_user_attr(trial, "answer", "y" * 100_000))
    found = answered(place, trial)
    assert found == (["answer", "before", "later"] if share == 1.0 else ["before", "later"])
    assert sorted(storage.get_trial(trial).user_attrs) == found, "for those who had it open, too"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_database_survives_a_writer_that_is_killed_within_a_write(tmp_path):
    """With hardly any memory for pages, so that half of a transaction is in the file when its writer is killed."""
    path = tmp_path / "s.db"
    storage = open_storage(f"sqlite:///{path}")
    trial = storage.create_new_trial(storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s"))
    storage.set_trial_user_attr(trial, "before", "x")
    storage.remove_session()

    def torn():
        again = open_storage(f"sqlite:///{path}")
        sqlalchemy.event.listen(again.engine, "begin", lambda c: c.exec_driver_sql("PRAGMA cache_size=1"))
        sqlalchemy.event.listen(again.engine, "commit", lambda c: os.kill(os.getpid(), signal.SIGKILL))
        again.set_trial_user_attr(trial, "answer", "y" * 100_000)

    size = path.stat().st_size
    killed(torn)
    assert path.stat().st_size > size, "a part has been written"
    assert path.with_name("s.db-journal").exists(), "and is to be taken back"
    assert answered(f"sqlite:///{path}", trial) == ["before", "later"]


# resumed searches


class Stop(Progress):
    """Ends a search after some results."""

    def __init__(self, after: int) -> None:
        self.left = after

    def kept(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def halves(self: Population) -> int:
    """Chunks that split every round of the small plan."""
    return 8


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(Population, "_affordable_rows", halves)


def run(path: Path, name: str, **options):
    return search(toy.Toy(), open_storage(str(path)), name, space=SMALL, plan=PLAN, **options)


def trials(path: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=open_storage(str(path))).trials


def results(path: Path, name: str) -> Counter:
    """How often each result is in a study, by candidate and round."""
    return Counter(
        (repr(sorted(trial.params.items())), round_)
        for trial in trials(path, name)
        for round_ in trial.user_attrs["rounds"]
    )


def spent(path: Path, name: str) -> int:
    return optuna.load_study(study_name=name, storage=open_storage(str(path))).user_attrs["spent"]["work"]


def stop(monkeypatch, path: Path, name: str, *, after: int, killed: bool) -> None:
    """Ends a search; with `killed` it writes nothing more."""
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(Record, "close", lambda self: None)
        run(path, name, progress=Stop(after))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed"])
def test_a_search_that_was_stopped_anywhere_comes_to_the_same(tmp_path, monkeypatch, killed):
    path, parts = tmp_path / "j", Stop(10**9)
    whole = run(path, "whole", progress=parts)
    last = 10**9 - parts.left - 1
    for after in (0, last // 2, last):
        name = f"after {after}"
        with pytest.raises(KeyboardInterrupt):
            stop(monkeypatch, path, name, after=after, killed=killed)
        assert trials(path, name), "what was trained is kept"
        assert any(trial.state == TrialState.RUNNING for trial in trials(path, name)) == killed
        again = run(path, name, resume=True)
        assert (again.config, again.evidence) == (whole.config, whole.evidence), "to the last bit"
        assert set(results(path, name)) == set(results(path, "whole"))
        assert set(results(path, name).values()) == {1}, "nothing is there twice"
        assert all(trial.state.is_finished() for trial in trials(path, name))
        if killed:
            assert len(trials(path, name)) == len(trials(path, "whole")), "the same trials go on"
        assert again.work < spent(path, name) <= spent(path, "whole"), "nothing is trained twice"


@pytest.mark.usefixtures("small_chunks")
def test_a_verdict_goes_on_where_it_was(tmp_path, monkeypatch):
    path, trained = tmp_path / "j", []
    whole, train = run(path, "whole"), Population.train

    def judge(*args):
        raise KeyboardInterrupt

    def seen(self, configs, seeds, steps, **rest):
        trained.append((len(configs), len(seeds)))
        return train(self, configs, seeds, steps, **rest)

    with monkeypatch.context() as patch:
        patch.setattr("autoranger.search.study.judge", judge)
        with pytest.raises(KeyboardInterrupt):
            run(path, "s")
    monkeypatch.setattr(Population, "train", seen)
    assert run(path, "s", resume=True).evidence == whole.evidence
    assert [call for call in trained if call[0]] == [(1, 1), (1, 1)], "only the task is looked at"


def changed_data(self):
    return {name: (x, 1 - y if name == "test" else y) for name, (x, y) in toy.Toy.data(self).items()}


CHANGES = {
    "test data": {"data": changed_data},
    "model": {"model": lambda self: torch.nn.Linear(4, 2)},
    "loss": {"loss": lambda self, output, target: 1.01 * toy.Toy.loss(self, output, target)},
    "model, ": {"augment": lambda self, inputs: inputs + 0.01 * torch.randn_like(inputs)},
    "metric": {"metric": lambda self, output, target: 2 * toy.Toy.metric(self, output, target)},
    "lr_range": {"lr_range": (1e-2, 1e0)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_task_does_not_go_on_with_a_search(tmp_path, what):
    path, other = tmp_path / "j", type("Other", (toy.Toy,), CHANGES[what])
    with pytest.raises(KeyboardInterrupt):
        run(path, "s", progress=Stop(0))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=what):
        search(other(), open_storage(str(path)), "s", space=SMALL, plan=PLAN, resume=True)
    assert path.read_bytes() == before


def test_a_checksum_is_of_types_shapes_and_contents():
    x = torch.arange(6.0)
    others = [x.view(2, 3), x.double(), x + 1e-6, x.flip(0), (x, x), {"a": x}, x[None], x > 2, torch.tensor(3)]
    assert len({checksum(x), *map(checksum, others)}) >= len(others), "a sequence of one counts as a mapping of one"
    assert checksum(x) == checksum(torch.arange(12.0)[::2] / 2)


def test_two_processes_do_not_search_in_one_study(tmp_path):
    path = tmp_path / "j"
    with pytest.raises(KeyboardInterrupt):
        run(path, "s", progress=Stop(0))
    study = optuna.load_study(study_name="s", storage=open_storage(str(path)))
    assert study.user_attrs["searching"] is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        holder = f"{host()} {process.pid} {birth(process.pid) or '-'}"
        study.set_user_attr("searching", holder)
        if ended(holder) is False:
            with pytest.raises(ConfigError, match=f"is being searched by process {process.pid}"):
                run(path, "s", resume=True)
        process.communicate()
    run(path, "s", resume=True)


def test_a_study_that_is_not_ours_is_not_resumed(tmp_path):
    storage = open_storage(str(tmp_path / "j"))
    optuna.create_study(study_name="s", storage=storage).add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(ConfigError, match="was not made by autoranger"):
        Record(storage, "s", SMALL, {}, resume=True)


def test_a_population_keeps_no_more_initialisations_than_it_needs():
    population = Population(toy.Toy())
    for i in range(5):
        population.train([Config()], [2 * i, 2 * i + 1], 1)
    assert set(population._inits) == {8, 9}


# places


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("my_task.py", ("my_task.py", "")),
        ("my_task.py:MyTask", ("my_task.py", "MyTask")),
        (r"C:\work\my_task.py", (r"C:\work\my_task.py", "")),
        (r"C:\my work\my_task.py:MyTask", (r"C:\my work\my_task.py", "MyTask")),
        ("/12:30/my_task.py", ("/12:30/my_task.py", "")),
        ("/12:30/my_task.py:Täsk", ("/12:30/my_task.py", "Täsk")),
        ("package.module:MyTask", ("package.module", "MyTask")),
        ("digits", ("digits", "")),
    ],
)
def test_a_class_stands_behind_the_last_colon(spec, parts):
    assert split(spec) == parts


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "x.toml").symlink_to(tmp_path / "real" / "y.toml")
    write_whole(tmp_path / "x.toml", "lr = 0.1\n")
    assert (tmp_path / "x.toml").is_symlink()
    assert (tmp_path / "real" / "y.toml").read_text() == "lr = 0.1\n"
    assert len(list((tmp_path / "real").iterdir())) == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_has_gone_is_no_failure(options):
    command = [sys.executable, "-m", "autoranger", "components", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_streams_take_any_text(encoding, monkeypatch):
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding=encoding))
    text = "→ ranger21 − norm_loss, η … é 日 \udcff"
    with streams():
        print(text)
    plain = "-> ranger21 - norm_loss, eta ... e ? "
    expected = text.encode(errors="surrogateescape") if encoding == "utf-8" else plain.encode() + b"\xff"
    assert written.getvalue() == expected + b"\n"


def test_a_closed_stream_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with streams():
        print("something")

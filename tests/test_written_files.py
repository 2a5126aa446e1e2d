"""Files that trainings write: each into its folder, or one training at a time."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from contextlib import closing

import pytest

from autoranger.components.core.config import Config
from autoranger.search.engine.pool import Pool
from autoranger.search.engine.process import Processes
from autoranger.search.serialization import from_data
from autoranger.search.tune import tune as tunes
from autoranger.search.tune.about import FULL, Full
from autoranger.search.tune.files import LOOKED_AT, written
from autoranger.search.tune.runs import Runs
from autoranger.search.tune.script import Script
from autoranger.search.tune.source import sendable
from autoranger.search.tune.training import Training
from autoranger.search.tune.trial import Job, Trial
from tests import trainings
from tests.test_tune import results, runs, tuned


def test_weights_that_have_changed_are_found(tmp_path):
    (tmp_path / "a_last.ckpt").symlink_to(tmp_path / "gone.ckpt")
    names = ["best.pt", "deep/er/w.SAFETENSORS", "log.txt", ".cache/x.pt", "__pycache__/x.npy", "old.npz"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    now = time.time()
    for name in names:
        os.utime(tmp_path / name, (now, now - 5 * (name == "old.npz")))
    assert written(tmp_path, now - 1) == ("best.pt", "deep/er/w.SAFETENSORS")
    assert written(tmp_path, now + 1) == ()
    assert written(tmp_path / "missing", now) == ()


def test_a_folder_of_very_many_files_is_not_all_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("autoranger.search.tune.files.LOOKED_AT", 10)
    for i in range(30):
        (tmp_path / f"{i}.pt").touch()
    assert len(written(tmp_path, 0.0)) == 10 < LOOKED_AT


def test_each_trial_has_a_folder_while_it_lasts(tmp_path):
    trials = [Trial(Job(Config(), seed), 0, lambda told: None, str(tmp_path)) for seed in (0, 1)]
    folders = [trial.folder for trial in trials]
    assert folders == [trial.folder for trial in trials]
    assert len({*folders}) == 2
    assert all(folder.parent == tmp_path and not [*folder.iterdir()] for folder in folders)
    for trial in trials:
        (trial.folder / "best.pt").touch()
        trial.close()
    assert not [*tmp_path.iterdir()]


def test_without_its_place_a_folder_is_among_the_systems(tmp_path):
    with closing(Trial(Job(Config(), 0), 0, lambda told: None, str(tmp_path / "missing"))) as trial:
        assert str(trial.folder.parent) == tempfile.gettempdir()
    assert not trial._folder


def test_only_a_killed_training_leaves_its_folder_to_the_search(tmp_path):
    pool = Pool([Processes(sendable(Training(trainings.saves_apart, str(tmp_path))), 2, 1)])
    found = results(pool, [Job(Config(lr=0.01), seed) for seed in range(4)])
    assert {job.seed: result.failure for job, result in found.items() if result.failure} == {
        2: "its process ended: SIGKILL, as if memory ran out"
    }
    assert len([*tmp_path.iterdir()]) == 1


@pytest.fixture
def two_cores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tunes, "usual", lambda: 2)
    monkeypatch.setattr(tunes, "has_gpu", lambda: False)


def test_trainings_that_write_one_file_run_one_at_a_time(tmp_path, two_cores):
    with pytest.warns(UserWarning, match=r"writes best.pt, .*so one training runs at a time. Write to trial.folder"):
        tuned(tmp_path, trainings.saves, workers=None)
    assert {run.state.name for run in runs(tmp_path)} == {"COMPLETE"}


def test_whoever_asks_for_several_at_once_is_told_what_that_means(tmp_path, two_cores):
    with pytest.warns(UserWarning, match=r"writes best.pt: if others .* the same file, their results are wrong. Write"):
        tuned(tmp_path, trainings.leaves, workers=2)


def test_trainings_that_know_of_several_at_once_are_trusted(tmp_path, two_cores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned(tmp_path, trainings.saves_by_worker, workers=None)
    assert {path.name for path in tmp_path.glob("*.pt")} == {"best-0.pt", "best-1.pt"}


def test_a_search_leaves_none_of_its_trainings_folders(tmp_path, two_cores, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned(tmp_path, trainings.saves_apart, workers=None)
    assert not [*(tmp_path / "temporary").iterdir()]


@pytest.mark.parametrize("writes", [(), ("best.pt",)])
def test_what_a_study_notes_of_files_is_only_there_if_there_are_any(tmp_path, writes):
    """Studies that have been begun without it go on."""
    full = Full(8, 1.0, True, "cpu", "score", {}, writes)
    subject = Script(
        Pool([]), "f", metric=None, direction="maximize", lr_range=(0.01, 0.1), code=0, open_runs=Runs, full=full
    )
    noted = subject.learned[FULL]
    assert ("writes" in noted) == bool(writes)
    assert from_data(Full, noted, FULL) == full

"""A user's own training: trials, worker processes and what becomes of them, and searches from scripts and notebooks."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

import autoranger
from autoranger import Config, ConfigError, SearchError
from autoranger.search.direction import lower_is_better
from autoranger.search.engine import pool
from autoranger.search.engine.inline import Inline
from autoranger.search.engine.pool import Pool
from autoranger.search.engine.process import Processes
from autoranger.search.race.plan import Plan, Rung
from autoranger.search.space import Space
from autoranger.search.storage.process import birth
from autoranger.search.storage.storage import open_storage
from autoranger.search.tune import tune as tunes
from autoranger.search.tune.plans import STANDARD, plans
from autoranger.search.tune.runs import Runs
from autoranger.search.tune.sanity import Sanity
from autoranger.search.tune.source import Named, checksum, sendable
from autoranger.search.tune.training import Result, Training, named_numbers, train_once
from autoranger.search.tune.trial import Job, Trial
from autoranger.search.tune.tune import engine, tune_in
from tests import trainings

ROOT = Path(__file__).parents[1]
CONFIG = Config(lr=0.01)
PARAMETER = torch.zeros(2, requires_grad=True)
SMALL = Space(("gradient_centralization", "lookahead"))
PLAN = Plan(4, (Rung(4, 1, 2, 99), Rung(8, 1, 1, 2)), 8, 8)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


class Deaf:
    """Hears of trainings, and does nothing."""

    def __init__(self):
        self.told = []

    def begun(self, job):
        self.told.append(("begun", job.seed))

    def reported(self, job, step, value):
        self.told.append((job.seed, step, value))

    def pulse(self):
        pass


def forked(train, size=2, timeout=None, log=None):
    """A pool of forks, which know from here how a step is run."""
    once(trainings.draws)
    return Pool([Processes(Training(train), size, 1, log)], timeout)


def results(engine, jobs, listener=None):
    """What comes of jobs; where a worker is lost, a failure."""
    try:
        found = dict(engine.run(jobs, listener or Deaf()))
    finally:
        engine.close()
    return {job: x if isinstance(x, Result) else Result(failure=x.why) for job, x in found.items()}


def once(train, job=None):
    return train_once(train, Trial(job or Job(CONFIG, 0), 0, lambda report: None))


def tuned(tmp_path, train=trainings.quick, name="s", **rest):
    """A small search; in forks, since what `train` is may be a function of a test."""
    options = {"space": SMALL, "plan": PLAN, "workers": 0, "lr_range": (1e-3, 1e-1)} | rest
    return tune_in(train, open_storage(str(tmp_path / "journal")), name, **options)


def runs(tmp_path, name="s"):
    return optuna.load_study(study_name=f"{name}-runs", storage=open_storage(str(tmp_path / "journal"))).trials


def script(folder, text, *args, python=sys.executable, **options):
    """Runs a Python program as a user would, and returns the process when it has ended."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text))
    return subprocess.run(
        [python, str(path), *args], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, **options
    )


# a trial


def test_a_trial_builds_the_candidate_and_counts_what_happens():
    told = []
    trial = Trial(Job(Config.preset("ranger21", lr=0.1), 5, 0.5), 3, told.append)
    model = torch.nn.Linear(2, 1)
    assert not trial.shortened
    assert (trial.length, trial.seed, trial.worker) == (0.5, 5, 3)
    assert trial.shortened
    optimizer = trial.build(model, 10)
    assert optimizer.config == trial.config
    assert optimizer.param_groups[0]["total_steps"] == 10
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert (trial.steps, trial.total_steps, trial.device) == (1, 10, "cpu")
    trial.report(torch.tensor(2.0), 7)
    assert [report for report in told if report] == [(7, 2.0)]


@pytest.mark.parametrize(
    ("returned", "numbers"),
    [
        (1, {"": 1.0}),
        (np.float32(0.5), {"": 0.5}),
        (torch.tensor([2.0]), {"": 2.0}),
        ({"f1": np.array(0.25), "test": 3}, {"f1": 0.25, "test": 3.0}),
    ],
)
def test_a_training_returns_a_number_or_several(returned, numbers):
    assert named_numbers(returned) == numbers


@pytest.mark.parametrize("returned", [None, "0.5", True, {}, [0.5], {"f1": None}, torch.ones(2)])
def test_anything_else_is_a_failure_that_says_so(returned):
    def train(trial):
        trainings.stepped(trial)
        return returned

    assert "but must return a number, or a dict of numbers, at" not in once(train).failure
    assert "must return a number, or a dict of numbers" in once(train).failure


def test_a_training_without_the_trials_optimizer_is_a_failure():
    assert once(lambda trial: 1.0).failure == "it did not call trial.build(model, total_steps) for its optimizer"


def test_what_is_reported_as_not_finite_ends_a_training_that_catches_its_errors():
    def train(trial):
        trainings.stepped(trial)
        try:
            trial.report(float("nan"), 3)
        except Exception:
            return 1.0
        return 2.0

    assert once(train).failure == "reported nan at step 3"


def test_trainings_of_a_seed_draw_the_same_random_numbers():
    one, again, other = (once(trainings.draws, Job(CONFIG, seed)).metrics[""] for seed in (1, 1, 2))
    assert one == again != other
    state = torch.get_rng_state()
    (here,) = results(Inline(Training(trainings.draws)), [Job(replace(CONFIG, lr=0.5), 1)]).values()
    assert here.metrics[""] == one, "of all candidates"
    assert torch.equal(torch.get_rng_state(), state), "and leave the user's generators alone"


# workers


@needs_fork
def test_a_training_may_fail_in_any_way(tmp_path):
    log = tmp_path / "log"
    jobs = [Job(CONFIG, seed) for seed in range(len(trainings.AWKWARD) + 2)]
    found = results(forked(trainings.awkward, timeout=5.0, log=log), jobs)
    assert set(found) == set(jobs)
    for job, result in found.items():
        reason = trainings.AWKWARD.get(job.seed, "")
        assert result.failure.startswith(reason), job
        assert bool(result.failure) == bool(reason)
        assert result.failure or result.metrics == {"": 1.0}
    assert "second line" in found[jobs[1]].trace
    assert log.exists()


@needs_fork
def test_a_worker_that_is_killed_is_replaced():
    victims = []

    class Killer(Deaf):
        def begun(self, job):
            if not victims:
                (worker,) = crew.workers
                victims.append(worker.process.pid)
                os.kill(worker.process.pid, signal.SIGKILL)

    crew = forked(trainings.slow, 1)
    found = results(crew, [Job(CONFIG, seed) for seed in range(2)], Killer())
    assert [bool(result.failure) for result in found.values()] == [True, False]
    assert "SIGKILL" in next(iter(found.values())).failure


@needs_fork
def test_a_silent_training_hangs_by_the_measure_of_others(monkeypatch):
    monkeypatch.setattr(pool, "SHORTEST", 0.5)
    monkeypatch.setattr(pool, "PATIENCE", 1.0)

    def train(trial):
        trainings.stepped(trial)
        time.sleep(0.05 if trial.seed == 0 else 60)
        return 1.0

    began = time.monotonic()
    found = list(results(forked(train, 1), [Job(CONFIG, 0), Job(CONFIG, 1)]).values())
    assert not found[0].failure
    assert re.match(r"it hung: no step and no report for \d+ s", found[1].failure)
    assert time.monotonic() - began < 50


@needs_fork
def test_workers_end_with_their_pool_whatever_they_do():
    crew = forked(lambda trial: time.sleep(60))
    trained = crew.run([Job(CONFIG, 0), Job(CONFIG, 1)], Impatient())
    with pytest.raises(KeyboardInterrupt):
        list(trained)
    crew.close()
    assert not crew.workers


class Impatient(Deaf):
    def pulse(self):
        if len(self.told) == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere.py:train", "there is no file nowhere.py"),
        ("broken.py:train", r"training file broken.py fails to import \(ValueError: at once"),
        ("good.py:trian", "unknown function 'trian' in good.py; did you mean 'train'"),
        ("good.py:NUMBER", "good.py:NUMBER is not a function"),
        ("good.py:nothing", "good.py:nothing must take one argument, the trial"),
        ("no.such.module:train", "fails to import"),
    ],
)
def test_a_function_that_there_is_not_is_said_in_a_sentence(tmp_path, monkeypatch, place, words):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("raise ValueError('at once')")
    Path("good.py").write_text("NUMBER = 1\ndef train(trial): ...\ndef nothing(): ...")
    with pytest.raises(ConfigError, match=words):
        Named(place).prepare()


def test_a_training_in_a_worker_may_begin_processes_of_its_own(tmp_path):
    """As a loader does; and what is defined beside the function can be sent to them."""
    (tmp_path / "with_loader.py").write_text(
        textwrap.dedent("""
        import multiprocessing, torch
        from torch.utils.data import DataLoader, Dataset
        class Numbers(Dataset):
            def __len__(self):
                return 4
            def __getitem__(self, i):
                return float(i)
        def train(trial):
            trial.build([torch.ones(1, requires_grad=True)], 4).step()
            assert multiprocessing.current_process().name == "autoranger-worker-0"
            spawned = DataLoader(Numbers(), 4, num_workers=1, multiprocessing_context="spawn")
            (batch,) = DataLoader(Numbers(), 4, num_workers=1)
            (again,) = spawned
            return float((batch + again).sum())
        """)
    )
    function = sendable(Training(Named(f"{tmp_path / 'with_loader.py'}:train")))
    (result,) = results(Pool([Processes(function, 1, 1)]), [Job(CONFIG, 0)]).values()
    assert not result.failure
    assert result.metrics == {"": 12.0}


def test_functions_that_other_processes_can_import_are_told_from_others():
    assert sendable(Training(trainings.quick)) is not None
    assert sendable(Training(Named("train.py:train"))) is not None
    assert sendable(Training(lambda trial: 1.0)) is None


def test_the_code_of_a_training_is_what_it_reaches(tmp_path):
    text = "def train(trial):\n    return helper()\ndef helper():\n    return 1\ndef main():\n    train(1)\n"
    variants = {
        "same": text,
        "comment": text.replace("return 1", "return 1  # one"),
        "elsewhere": text.replace("train(1)", "train(2)"),
        "helper": text.replace("return 1", "return 2"),
    }
    sums = {}
    for name, variant in variants.items():
        (tmp_path / f"{name}_code.py").write_text(variant)
        sums[name] = checksum(Named(f"{tmp_path / name}_code.py:train"))
    assert sums["same"] == sums["comment"] == sums["elsewhere"] != sums["helper"]


# searches


def test_a_search_finds_what_is_better_and_keeps_every_training(tmp_path):
    outcome = tuned(tmp_path)
    assert "lookahead" not in outcome.config.components
    assert outcome.config.lr == 0.01
    assert all(finalist.test == 7.0 for finalist in outcome.finalists)
    trained = runs(tmp_path)
    assert {trial.state for trial in trained} == {optuna.trial.TrialState.COMPLETE}
    assert all(trial.intermediate_values for trial in trained)
    keys = [json.dumps([trial.user_attrs[k] for k in ("config", "seed", "length")]) for trial in trained]
    assert len(set(keys)) == len(keys), "none is done twice"
    assert {trial.user_attrs["length"] for trial in trained} == {0.5, 1.0}
    steps = {trial.user_attrs["length"]: trial.user_attrs["result"]["total_steps"] for trial in trained}
    assert steps == {0.5: 4, 1.0: 8}


def test_lower_is_better_where_that_is_said(tmp_path):
    def train(trial):
        return -trainings.quick(trial)["score"]

    assert tuned(tmp_path, train, direction="minimize", metric="regret").config.lr == 0.01
    assert optuna.load_study(study_name="s-runs", storage=open_storage(str(tmp_path / "journal"))).best_value < 1


def test_the_wrong_direction_is_noticed(tmp_path):
    def train(trial):
        trainings.stepped(trial)
        return 1.0 / (1.0 + trial.config.lr) + trial.seed % 3 * 1e-4

    with pytest.raises(ConfigError, match='should the direction be "minimize"'):
        tuned(tmp_path, train)


def falling(trial):
    """Reports a loss that gets better, and returns the last one."""
    losses = [math.exp(-trial.config.lr * t) for t in range(4)]
    trainings.stepped(trial)
    trial.reports = ()
    for t, loss in enumerate(losses):
        trial.report(loss, t)
    return losses[-1]


def test_a_direction_is_asked_for_where_reports_fall(tmp_path):
    with pytest.raises(ConfigError, match=r'falls in each of the first 3 trainings.* "minimize" or "maximize"'):
        tuned(tmp_path, falling)
    assert len(runs(tmp_path)) == 3
    assert tuned(tmp_path, falling, "said", direction="minimize").config.lr > 0


def test_reports_of_something_else_say_nothing_of_the_direction(tmp_path):
    assert tuned(tmp_path, lambda trial: falling(trial) + trainings.merit(trial.config) + 0.37).config.lr > 0


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("loss", True),
        ("val/loss", True),
        ("valLoss", True),
        ("RMSE", True),
        ("log_loss", True),
        ("word error", True),
        ("perplexity", True),
        ("neg_log_loss", False),
        ("f1", False),
        ("accuracy", False),
        ("", False),
    ],
)
def test_names_of_metrics_of_which_lower_is_better(name, lower):
    assert lower_is_better(name) is lower


def test_a_loss_without_a_direction_is_not_trained(tmp_path):
    def never(trial):
        raise AssertionError

    with pytest.raises(ConfigError, match="called 'loss' are usually better; say which with direction \"minimize\""):
        tuned(tmp_path, never, metric="loss")
    assert optuna.get_all_study_names(open_storage(str(tmp_path / "journal"))) == []


def test_a_metric_is_one_of_several(tmp_path):
    def train(trial):
        score = trainings.quick(trial)["score"]
        return {"loss": -score, "f1": score}

    assert tuned(tmp_path, train, metric="f1").config.lr == 0.01
    with pytest.raises(ConfigError, match="the first training fails: it returned no 'auc', but loss, f1"):
        tuned(tmp_path, train, "other", metric="auc")


def test_failures_are_trials_with_their_reason_and_not_the_end(tmp_path):
    def train(trial):
        if trial.config.lr > 0.05:
            raise RuntimeError("too wild")
        return trainings.quick(trial)

    assert tuned(tmp_path, train).config.lr == 0.01
    failed = [trial for trial in runs(tmp_path) if trial.state == optuna.trial.TrialState.FAIL]
    assert failed
    assert all(trial.user_attrs["failed"].startswith("RuntimeError: too wild, at test_tune.py") for trial in failed)
    assert all(trial.params["lr"] > 0.05 for trial in failed)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (lambda trial: 1.0, "the first training fails: it did not call trial.build"),
        (lambda trial: 1 / 0, "the first training fails: ZeroDivisionError: division by zero, at test_tune.py"),
        (lambda trial: trial.build([PARAMETER]) and 1.0, r"trial\.build needs total_steps, .* at test_tune\.py"),
        (lambda trial: trial.build([PARAMETER], 8) and 1.0, r"it never called step\(\) of the optimizer"),
        (
            lambda trial: trainings.stepped(trial) and math.nan,
            "the metric is nan, with Ranger21 .* and with AdamW",
        ),
        (lambda trial: {"val_loss": trainings.quick(trial)["score"]}, "lower values of a metric called 'val_loss'"),
    ],
)
def test_what_cannot_work_is_said_after_the_first_training(tmp_path, train, words):
    with pytest.raises(ConfigError, match=words):
        tuned(tmp_path, train)


def test_a_training_that_cannot_be_short_is_raced_at_full_length(tmp_path):
    def train(trial):
        whole = type("Whole", (), {"length": 1.0, "build": trial.build, "report": trial.report})
        trainings.stepped(whole)
        return trainings.merit(trial.config) + trial.seed % 5

    tuned(tmp_path, train, plan=None)
    assert {trial.user_attrs["length"] for trial in runs(tmp_path)} == {1.0}


def test_a_trial_builds_what_the_file_builds_of_a_model():
    def trained(build):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Embedding(10, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
        optimizer = build(model)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.arange(10)).square().sum().backward()
            optimizer.step()
        return list(model.parameters())

    config = Config(lr=0.01, components={"muon": {}})
    trial = Trial(Job(config, seed=0), 0, lambda told: None)
    ours, theirs = trained(lambda m: trial.build(m, 3)), trained(lambda m: config.build(m, 3))
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("models", "known"),
    [
        ([torch.nn.Linear(2, 3)], True),
        ([torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)], False),
        ([torch.nn.LazyLinear(3)], False),
        ([torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 0))], False),
    ],
    ids=["one", "two", "lazy", "without outputs"],
)
def test_a_scale_is_of_one_model_that_has_one(models, known):
    trial = Trial(Job(Config(), seed=0), 0, lambda told: None)
    for model in models:
        trial.build(model, 8)
    assert bool(trial.scale) == known


@pytest.mark.parametrize(("threads", "gpu", "size"), [(2, False, 2), (6, False, 3), (64, False, 4), (8, True, 1)])
def test_trainings_use_the_cores_if_nobody_says_how_many(monkeypatch, threads, gpu, size):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(tunes, "has_gpu", lambda: gpu)
    assert engine(Training(trainings.quick), None, None, None).size == size


def test_a_script_may_say_what_its_file_notes():
    trial = Trial(Job(Config(), seed=0), 0, lambda told: None)
    trial.build(torch.nn.Linear(2, 3), 8, batch_size=16, examples=1000)
    assert (trial.scale["steps"], trial.scale["batch_size"], trial.scale["examples"]) == (8, 16, 1000)
    with pytest.raises(ConfigError, match="examples is 0, but must be a whole number from 1"):
        trial.build(torch.nn.Linear(2, 3), 8, examples=0)


@pytest.mark.parametrize("given", ["model", "parameters"])
def test_the_file_knows_the_scale_of_what_was_trained(tmp_path, given):
    def train(trial):
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        steps = max(1, round(8 * trial.length))
        optimizer = trial.build(model if given == "model" else model.parameters(), total_steps=steps)
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
        return trainings.merit(trial.config) + trial.seed % 5

    found = tuned(tmp_path, train).config
    if given == "parameters":
        assert not found.proxy
        return
    assert (found.proxy["steps"], found.proxy["layers"]["0.weight"]["fan_in"]) == (8, 3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    same, longer = (found.build(model, total_steps=steps).param_groups for steps in (8, 32))
    assert not any(group.get("laws") for group in same)
    assert all(set(group["laws"]) == {"length"} and group["lr"] < found.lr for group in longer)


def test_plans_are_for_trainings_that_count():
    made = plans(100, shortened=True)
    costs = [plan.cost(256, 4) / 100 for plan in made]
    assert costs == sorted(costs)
    assert 30 < made[0].shortest.cost(256, 4) / 100 < 60 < costs[0] < costs[1] < costs[STANDARD] < 150
    assert made[STANDARD].arms * 4 == 8 * 4, "tens of candidates"
    assert plans(100, shortened=False)[0].rungs[0].steps == 100


def test_schedules_that_are_cut_off_are_said(tmp_path):
    def train(trial):
        count = max(1, round(8 * trial.length))
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = trial.build([parameter], total_steps=8)
        for _ in range(count):
            parameter.grad = torch.ones(3)
            optimizer.step()
        return trainings.merit(trial.config)

    with pytest.warns(UserWarning, match="builds its optimizer for 8 steps in a training of 0.5 of the full length"):
        tuned(tmp_path, train)


@pytest.mark.parametrize(("early", "said"), [(8, False), (9, True)])
def test_early_stopping_is_said_where_most_trainings_do_it(early, said):
    sanity = Sanity("train", 1, given=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for i in range(40):
            result = Result({"": 1.0}, total_steps=10, steps=8 if i < early else 10)
            sanity.look(Job(CONFIG, 0, 0.5), replace(result, total_steps=5, steps=1), 1.0, 10)
            sanity.look(Job(CONFIG, 0), result, 1.0, 10)
    assert [str(w.message).startswith("train ends before its total_steps in 9 of 16") for w in found] == [True] * said


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=needs_fork)])
def test_a_budget_is_kept(tmp_path, workers):
    def train(trial):  # of a test: in forks
        return trainings.slow(trial)

    began = time.monotonic()
    outcome = tuned(tmp_path, train, plan=None, budget=6.0, workers=workers, space=Space())
    assert time.monotonic() - began < 6.5
    assert outcome.config.lr > 0
    with pytest.raises(SearchError, match=r"not one training of slow ended within 0\.05 s"):
        tuned(tmp_path, trainings.slow, "other", plan=None, budget=0.05)


def test_a_search_goes_on_only_with_the_same_code(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, stopping_at(5))

    def quick(trial):
        return trainings.merit(trial.config)

    with pytest.raises(ConfigError, match="the code of its training changed"):
        tuned(tmp_path, quick, resume=True)


def stopping_at(number):
    """A training that is interrupted at the given call of it."""
    calls = []

    def quick(trial):
        calls.append(trial)
        if len(calls) == number:
            raise KeyboardInterrupt
        return trainings.quick(trial)

    return quick


@pytest.mark.parametrize("number", [1, 12, 40])
def test_an_interrupted_search_goes_on_where_it_was(tmp_path, number):
    whole = tuned(tmp_path, stopping_at(10**6), "whole")
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, stopping_at(number))
    before = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in runs(tmp_path))
    assert number - 2 <= before < number
    again = tuned(tmp_path, stopping_at(10**6), resume=True)
    assert (again.config, again.evidence) == (whole.config, whole.evidence)
    done = [trial for trial in runs(tmp_path) if trial.state == optuna.trial.TrialState.COMPLETE]
    assert len(done) == len(runs(tmp_path, "whole")), "nothing is trained twice"


# from outside


def test_the_readmes_script_runs_as_a_user_would_run_it(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (example,) = [block for block in blocks if block.startswith("# train.py")]
    done = script(tmp_path, example.replace('"10m"', '"20s"').replace("round(20 *", "round(2 *"))
    assert done.returncode == 0, done.stderr
    assert "Written to tuned.toml" in done.stdout
    assert "a first training" in done.stderr
    assert autoranger.load(str(tmp_path / "tuned.toml")).lr > 0


def test_a_script_that_would_begin_again_in_its_workers_is_told(tmp_path):
    done = script(
        tmp_path,
        """
        import autoranger
        def train(trial):
            return 1.0
        autoranger.tune(train)
        """,
    )
    assert done.returncode == 1
    assert 'put the call under  if __name__ == "__main__":' in done.stderr


@needs_fork
def test_a_notebooks_functions_are_trained_in_copies_of_it(tmp_path):
    """A program on standard input has a `__main__` as a notebook has: there is no file to import."""
    text = """
    import os, autoranger, torch
    from autoranger.search.space import Space
    from tests import trainings
    here = os.getpid()
    def train(trial):
        assert os.getpid() != here
        return trainings.quick(trial)
    found = autoranger.tune(train, workers=2, study="s", storage="journal", space=Space(("lookahead",)))
    print("found", found.config.lr)
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-"],
        input=textwrap.dedent(text),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "found 0.0" in done.stdout
    assert "Written to" not in done.stdout


@pytest.fixture
def command(tmp_path, monkeypatch, autoranger):
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return autoranger


@needs_fork
def test_a_killed_search_takes_its_workers_with_it_and_goes_on(tmp_path, command):
    Path("mine.py").write_text(
        textwrap.dedent(f"""
        import os, sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tests import trainings
        def train(trial):
            Path("pids").open("a").write(f"{{os.getpid()}}\\n")
            while Path("slowly").exists() and len(Path("pids").read_text().split()) > 3:
                time.sleep(0.01)
            return trainings.quick(trial)
        """)
    )
    words = ["tune", "mine.py:train", "--workers", "2", "--space", "lookahead", "--storage", "journal", "--study", "s"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    slowly, pids, deadline = Path("slowly"), Path("pids"), time.monotonic() + 90
    slowly.touch()
    first = subprocess.Popen([sys.executable, "-m", "autoranger", *words, "--quiet"], env=environment)
    while not (pids.exists() and len({*pids.read_text().split()}) == 2 and len(pids.read_text().split()) > 3):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    while any(birth(int(pid)) for pid in {*pids.read_text().split()}):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    slowly.unlink()
    status, _, err = command(*words, "--resume")
    assert status == 0, err
    assert autoranger.load("tuned.toml").lr > 0
    states = [trial.user_attrs.get("failed") for trial in runs(tmp_path)]
    assert states.count("interrupted") in (1, 2), "what was in training when it was killed"


# the command line


def test_the_command_tunes_a_function_of_a_file(command):
    Path("mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.trainings import quick as train"
    )
    status, out, err = command("tune", "mine.py:train", "--study", "s", "--log", "log", "--workers", "2")
    assert status == 0, err
    assert "valid score" in out
    assert "Written to tuned.toml" in out
    assert "verdict:" in err
    status, out, _ = command("show", "tuned.toml")
    assert status == 0
    assert "searched on mine" in out
    status, out, _ = command("report", "s")
    assert status == 0
    assert "Shapley value" in out
    document = json.loads(command("report", "s", "--json")[1])
    assert len(document["curves"]) == len(document["finalists"])
    first, last = document["evidence"]["comparison"]["seeds"]
    for curve in document["curves"]:
        told = []
        trainings.stepped(Trial(Job(Config.from_dict(curve["config"]), 0), 0, told.append))
        steps, values = zip(*(one for one in told if one is not None), strict=True)
        assert curve["steps"] == list(steps)
        assert curve["mean"] == pytest.approx(values, rel=1e-5)
        assert {*curve["seeds"]} == {last - first + 1}
    assert command("tune", "mine.py:train", "--study", "s", "--resume")[0] == 2, "it is finished"
    assert "has the single trainings of another one; report that: s." in command("report", "s-runs")[2]
    assert "it has s." in command("report", "t")[2]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["tune", "nowhere.py:train"], "there is no file nowhere.py"),
        (["tune", "old.py:train", "--timeout", "soon"], "timeout is 'soon'"),
        (["tune", "old.py:train", "--resume"], "--resume needs the --study"),
        (["tune", "old.py:train", "--lr-range", "2", "1"], "lr_range is (2.0, 1.0)"),
        (["new", "task", "old.py"], "old.py exists; choose another name"),
        (["new", "script", "old"], "old is no name of a Python file; write old.py"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(command, args, words):
    Path("old.py").write_text("def train(trial): ...")
    status, _, err = command(*args)
    assert status == 2
    assert words in err
    assert "Traceback" not in err


def test_what_new_writes_runs_as_it_is(command):
    assert "autoranger tune mine.py:train --budget 5m" in command("new", "script", "mine.py")[1]
    assert "autoranger search --task task.py:MyTask" in command("new", "task", "task.py")[1]
    trained = once(Named("mine.py:train"))
    assert not trained.failure
    assert 0.8 < trained.metrics[""] <= 1
    assert trained.shortened
    text = Path("task.py").read_text()
    Path("task.py").write_text(text.replace("steps = 200", "steps = 20"))
    status, out, err = command("compare", "ranger21", "adamw", "--task", "task.py:MyTask", "--seeds", "2")
    assert status == 0, err
    assert "valid F1" in out


def test_a_training_that_an_interruption_cuts_off_while_it_is_written_has_ended(monkeypatch):
    storage = optuna.storages.InMemoryStorage()
    runs = Runs(storage, "s", "maximize", Space(), resume=False)

    def interrupted(*given):
        type(storage).create_new_trial(storage, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "create_new_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.begun(Job(Config(), 0))
    runs.give_up()
    (trial,) = optuna.load_study(study_name="s-runs", storage=storage).trials
    assert trial.state == optuna.trial.TrialState.FAIL
    assert trial.user_attrs["failed"] == "interrupted"

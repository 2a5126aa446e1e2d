"""Searches that are killed again and again, and what each of their processes trained and wrote."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from autoranger import cli
from autoranger.cli import searching
from autoranger.search import study as studies
from autoranger.search.population import Population
from autoranger.search.storage.record import Record
from autoranger.search.storage.storage import open_storage
from autoranger.terminal import GRACE
from tests import toy
from tests.test_search import PLAN, SMALL

STUCK = 99
"""The status of a process that had to be killed, since it did not end when it was asked to."""

ROWS = 8
"""Rows of a chunk: they split every round of the small plan, so that kills have something to come between."""


class Small(toy.Toy):
    """The toy, trained in small chunks, each of which takes a moment."""

    name = "small"
    pause = 0.01


@dataclass
class Session:
    """What one process did.

    Args:
        begun: trainings that were begun, each a candidate, a length and seeds.
        written: those whose results were written.
    """

    begun: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


def command(folder: Path, storage: str, *more: str) -> list[str]:
    """The words of a search whose study is called `s`."""
    named = ["--storage", storage, "--study", "s", "--out", str(folder / "tuned.toml")]
    return ["autoranger", "search", "--task", "tests.kills:Small", *named, *more]


def process(log: Path, words: Sequence[str]) -> None:
    """A process that runs a command, and notes each training when it begins and when it is written."""
    notes = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    train, report, verdict = Population._train_chunk, Record.report, Record.report_verdict
    written = set[str]()

    def note(what: str, key: str) -> None:
        os.write(notes, f"{what} {key}\n".encode())

    def noted_train(self: Population, configs: Any, seeds: Any, steps: int, *rest: Any) -> Any:
        for config in configs:
            note("begun", f"{config} {steps} {list(seeds)}")
        time.sleep(Small.pause)
        return train(self, configs, seeds, steps, *rest)

    def noted_report(self: Record, config: Any, steps: int, seeds: Any, values: Any) -> None:
        report(self, config, steps, seeds, values)
        note("written", f"{config} {steps} {list(seeds)}")

    def noted_verdict(self: Record, steps: int, seeds: Any, scores: Any) -> None:
        verdict(self, steps, seeds, scores)
        for config in scores:
            key = f"{config} {steps} {list(seeds)}"
            if key not in written:
                written.add(key)
                note("written", key)

    Population._train_chunk = noted_train  # type: ignore[method-assign]
    Record.report, Record.report_verdict = noted_report, noted_verdict  # type: ignore[method-assign]
    Population._affordable_rows = lambda self: ROWS  # type: ignore[method-assign]
    standard = studies.planned
    studies.planned = lambda subject, space, clock, sampler, **options: (  # type: ignore[assignment]
        PLAN if clock.budget is None else standard(subject, space, clock, sampler, **options)
    )
    searching.choices = lambda *_: SMALL  # type: ignore[assignment]
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = log.with_suffix(".err").open("w", encoding="utf-8")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv = list(words)
    cli.main()


def sessions(log: Path) -> list[Session]:
    """What the processes did that noted it in files beside `log`, in their order."""
    found = []
    for part in sorted(log.parent.glob(f"{log.name}-*.log"), key=lambda p: int(p.stem.rpartition("-")[2])):
        session = Session()
        for line in part.read_text(encoding="utf-8").splitlines():
            what, _, key = line.partition(" ")
            (session.begun if what == "begun" else session.written).append(key)
        found.append(session)
    return found


def run(folder: Path, storage: str, after: Sequence[int], draw: random.Random, *options: str) -> list[int]:
    """Runs a search to its end, killing its first processes once they have noted so much; returns exit statuses."""
    context, statuses = multiprocessing.get_context("fork"), list[int]()
    for number, notes in enumerate([*after, None]):
        resume = ["--resume"] if statuses and begun(storage) else []
        words = command(folder, storage, *options, *resume)
        log = folder / f"process-{number}.log"
        child = context.Process(target=process, args=(log, words))
        child.start()
        while child.is_alive() and (notes is None or noted(log) < notes):
            child.join(0.02)
        child.join(draw.uniform(0, 0.1))  # a process is not always killed just after a note
        if child.exitcode is None:
            os.kill(child.pid or 0, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            child.join(GRACE + 60)
            if child.exitcode is None:
                child.kill()
                child.join()
                statuses.append(STUCK)
                continue
        statuses.append(child.exitcode or 0)
        if child.exitcode == 0:
            break
    return statuses


def noted(log: Path) -> int:
    """How much a process has noted: trainings begun and written."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def begun(storage: str) -> bool:
    """Whether there is a study to resume."""
    return "s" in optuna.get_all_study_names(open_storage(storage))


def wrong(folder: Path, storage: str) -> list[str]:
    """What is wrong with a search that has ended: trainings that were done again, or are there twice."""
    done, problems = set[str](), list[str]()
    for number, session in enumerate(sessions(folder / "process")):
        again = done.intersection(session.begun)
        problems += [f"process {number} trained again: {key}" for key in sorted(again)]
        done.update(session.written)
    study = optuna.load_study(study_name="s", storage=open_storage(storage))
    kept = Counter[str]()
    for trial in study.trials:
        if not trial.state.is_finished():
            problems.append(f"trial {trial.number} has not ended")
        for round_ in trial.user_attrs["rounds"]:
            kept[f"{trial.user_attrs['config']} {round_}"] += 1
    problems += [f"{count} times in the study: {key}" for key, count in kept.items() if count > 1]
    if not any(trial.state == TrialState.COMPLETE for trial in study.trials):
        problems.append("no trial is complete")
    return problems


def trained(storage: str) -> set[str]:
    """All candidates of a study, with each round that they were in and what came of it."""
    study = optuna.load_study(study_name="s", storage=open_storage(storage))
    return {
        f"{sorted(trial.params.items())} {round_} {values}"
        for trial in study.trials
        for round_, values in trial.user_attrs["rounds"].items()
    }

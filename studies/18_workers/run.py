"""What workers bring on one machine, and how many of them the process of a search can keep busy.

    python studies/18_workers/run.py

First, the candidate-steps a second of the `digits` task in the first round of a standard search: one process on one
core, one process on all cores (its threads), and as many worker processes as there are cores; and, as the most that the
machine has, so many processes that know nothing of each other. The runs alternate. Then, what the searching process
itself takes for a chunk: a `Pool` hands chunks to simulated workers, which take as long as chunks of `digits` did.
Last, the time for one look into the mailbox of a worker that has joined, and for one chunk handed out, by storage.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from operator import truediv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RUNS, STEPS = 9, 150
ALONE = "one process, one core"
SIMULATED = (1, 10, 100, 1000)


def configs() -> list[Any]:
    """Candidates as the first round of a standard search has them: all subsets, each with five rates."""
    from autoranger.search.space import Space

    return [replace(arm, lr=lr) for arm in Space().arms(256, 0) for lr in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)]


def throughput(workers: int) -> float:
    """Candidate-steps a second of this process and its workers."""
    from autoranger.search.crew.crew import Crew, engine
    from autoranger.search.population import Population
    from autoranger.search.tasks import create

    task, candidates = create("digits", "cpu", None), configs()
    with closing(engine(task, "metric", workers=workers)) as pool:
        crew = Crew(Population(task), pool)
        crew.train(candidates[:8], [0], 2)  # processes begin, and steps are compiled
        crew.train(candidates, [0], 2)
        began = time.perf_counter()
        crew.train(candidates, [0], STEPS)
        return len(candidates) * STEPS / (time.perf_counter() - began)


def measured(workers: int, threads: int, apart: int = 1) -> float:
    """The sum of `throughput` of so many processes apart, each with so many threads of torch."""
    command = [sys.executable, __file__, "--throughput", str(workers)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(apart)]
    return sum(float(run.communicate()[0]) for run in runs)


def saturation(seconds: float) -> list[dict[str, float]]:
    """How busy so many workers are whose chunks take `seconds`, if they are handed out by one process."""
    from autoranger.search.engine.engine import Done, Ready, Worker
    from autoranger.search.engine.pool import Pool

    class Sleeper(Worker):
        due: float | None = 0.0

        def send(self, item: Any) -> None:
            self.due = time.monotonic() + seconds * (0.5 + item % 100 / 100)

        def messages(self) -> list[Any]:
            if self.due is None or time.monotonic() < self.due:
                return []
            self.due = None
            return [Done(None) if self.ready else Ready()]

        def end(self, grace: float = 0.0) -> str:
            return ""

    class Sleepers:
        here = False

        def __init__(self, size: int) -> None:
            self.size, self.left = size, size

        def recruit(self, wanted: int) -> Sequence[Worker]:
            count = max(0, min(wanted, self.left))
            self.left -= count
            return [Sleeper(number) for number in range(count)]

        def release(self, worker: Worker) -> None: ...
        def check(self, worker: Worker, how: str) -> None: ...
        def close(self) -> None: ...

    class Deaf:
        def begun(self, item: Any) -> None: ...
        def reported(self, item: Any, *message: Any) -> None: ...
        def pulse(self) -> None: ...

    rows = []
    for size in SIMULATED:
        items = list(range(size * 8))
        work = sum(seconds * (0.5 + item % 100 / 100) for item in items)
        began, cpu = time.perf_counter(), time.process_time()
        with closing(Pool([Sleepers(size)])) as pool:
            assert sum(1 for _ in pool.run(items, Deaf())) == len(items)
        wall = time.perf_counter() - began
        spent = (time.process_time() - cpu) / len(items)
        rows.append({"workers": size, "busy": work / size / wall, "ms of the process a chunk": 1e3 * spent})
    return rows


def mailboxes() -> dict[str, dict[str, float]]:
    """Milliseconds of a look into a mailbox, and of handing out a chunk of 100 candidates, by storage."""
    import optuna

    from autoranger.search.crew.batch import Batch, Trained
    from autoranger.search.engine import board as boards
    from autoranger.search.storage.storage import open_storage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    boards.ASK = 0.0
    batch, found = Batch(tuple(configs()[:100]), (0,), STEPS, ("valid",)), {}
    with tempfile.TemporaryDirectory() as folder:
        places = {"journal": f"{folder}/journal", "SQLite": f"sqlite:///{folder}/db"}
        places |= {"PostgreSQL": os.environ["STUDY_DATABASE"]} if "STUDY_DATABASE" in os.environ else {}
        for name, place in places.items():
            storage = open_storage(place)
            study = f"workers-{time.time_ns()}"
            running = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
            storage.create_new_trial(boards.board(storage, study), running)
            (mailbox,) = boards.Board(storage, study, Trained.from_data).recruit(1)
            looks, gives = [], []
            for _ in range(20):
                began = time.perf_counter()
                mailbox.hear()
                looks.append(time.perf_counter() - began)
                began = time.perf_counter()
                mailbox.give(batch)
                gives.append(time.perf_counter() - began)
            found[name] = {"look": 1e3 * statistics.median(looks), "give": 1e3 * statistics.median(gives)}
    return found


def main() -> None:
    import torch

    cores = os.cpu_count() or 1
    ways = {
        ALONE: (1, 1),
        "one process, all cores": (1, cores),
        "a process for each core": (cores, cores),
        "processes apart": (1, 1, cores),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, way in ways.items():
            rates[name].append(measured(*way))
            print(name, f"{rates[name][-1]:,.0f}", flush=True)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": cores,
        "torch": torch.__version__,
        "runs": RUNS,
        "candidate-steps a second": {name: [round(rate) for rate in values] for name, values in rates.items()},
        "times one process on one core, median of runs": {
            name: statistics.median(map(truediv, values, rates[ALONE])) for name, values in rates.items()
        },
        "simulated": saturation(2.0),
        "mailbox, ms": mailboxes(),
    }
    (HERE / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--throughput"]:
        print(throughput(int(sys.argv[2])))
    else:
        main()

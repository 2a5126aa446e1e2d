"""What does a population lose on a machine that does something else, too, by how torch's threads wait for each other?

usage: python studies/10_population_throughput/busy.py [--repeats 3]

A population of the toy convolution net of this file, whose loss draws random numbers, so that it is trained by one call
that uses all cores, makes candidate-steps beside 0, 1, … other processes, each of which keeps one core busy: with
OpenMP's threads waiting for each other in several ways. Writes record_busy.json, and prints the table of the README:
medians over repeats, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RECORD = Path(__file__).with_name("record_busy.json")
POLICIES: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "10,000 turns": {"GOMP_SPINCOUNT": "10000"},
}
"""Environment variables. By default a thread looks 300,000 times before it sleeps, if there is a core for each."""


def measure() -> float:
    """Candidate-steps a second in this process."""
    import torch
    from torch import nn

    from autoranger import Config
    from autoranger.search.population import Population
    from autoranger.search.tasks.task import Task

    class Noisy(Task):
        name = "noisy"
        batch_size = 32

        def data(self):  # type: ignore[no-untyped-def]
            generator = torch.Generator().manual_seed(0)
            x, y = torch.randn(300, 3, 16, 16, generator=generator), torch.arange(300) % 10
            return dict.fromkeys(("train", "valid", "test"), (x, y))

        def model(self, scale: float = 1.0) -> nn.Module:
            first = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()
            return nn.Sequential(*first, nn.MaxPool2d(4), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 10))

    population, configs = Population(Noisy()), [Config(lr=0.001 * i) for i in range(1, 17)]
    assert population.workers == 1
    population.train(configs, [0], 2)
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        population.train(configs, [0], 25)
        best = max(best, 25 * len(configs) / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", action="store_true", help="measure in this process, and print the figure")
    asked = parser.parse_args()
    if asked.one:
        print(measure())
        return
    cores = os.cpu_count() or 1
    found: dict[str, dict[str, list[float]]] = {policy: {} for policy in POLICIES}
    for _ in range(asked.repeats):
        for others in range(cores + 1):
            busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
            try:
                for policy, variables in POLICIES.items():
                    run = subprocess.run(
                        [sys.executable, __file__, "--one"],
                        env=os.environ | variables,
                        capture_output=True,
                        text=True,
                        check=True,
                    )
                    found[policy].setdefault(str(others), []).append(round(float(run.stdout.split()[-1]), 1))
            finally:
                for process in busy:
                    process.kill()
    about = {"date": time.strftime("%Y-%m-%d"), "machine": f"{cores} cores, {platform.machine()}"}
    RECORD.write_text(json.dumps(about | {"candidate-steps a second": found}, indent=1) + "\n")
    print("| other processes | " + " | ".join(POLICIES) + " |\n" + "|---" * (1 + len(POLICIES)) + "|")
    for others in found["default"]:
        print(f"| {others} | " + " | ".join(f"{statistics.median(found[p][others]):,.0f}" for p in POLICIES) + " |")


if __name__ == "__main__":
    main()

"""Are bounded and literal stable weight decay the same to the bit where gradients are ordinary?

usage: python studies/13_bounded_decay/bits.py [--data-dir DIR] [--tasks digits diabetes …]

Full Ranger21 trains each shipped task's proxy in float64, with the bound and without, at rates from low to far beyond
the best. Prints in which step, if any, a parameter first differs, and the largest part s = η·λ/√mean(v̂) there was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from autoranger import Ranger21
from autoranger.components.presets import RANGER21
from autoranger.search.tasks import find
from autoranger.search.tasks.task import Task
from autoranger.search.vectorization import batch_order


def trainings(task: Task, lr: float, steps: int) -> tuple[int | None, float]:
    """The first step after which both differ, None where they never do; and the largest part."""
    inputs, targets = task.data()["train"]
    nets, optimizers = [], []
    for bound in (1.0, 1e30):
        torch.manual_seed(0)
        nets.append(task.model().double())
        decay = {"stable_weight_decay": {"bound": bound}}
        chosen = dict.fromkeys(RANGER21, True) | decay
        optimizers.append(Ranger21(nets[-1].parameters(), lr=lr, total_steps=steps, **chosen))
    largest = 0.0
    for t, indices in enumerate(batch_order(len(inputs), task.batch_size, steps, 0), start=1):
        x, y = inputs[indices], targets[indices]
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            task.loss(net(x.double() if x.is_floating_point() else x), y).backward()
            optimizer.step()
        (rate,) = optimizers[0].get_last_lr()
        for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            held = optimizers[0].state[p]
            mean = held["positive_negative_momentum.max_variance"].mean() / (1 - 0.999 ** int(held["step"]))
            largest = max(largest, rate * 1e-4 / float(mean.sqrt()) if mean > 0 else 0.0)
            if not torch.equal(p, q):
                return t, largest
    return None, largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tasks", nargs="+", default=["digits", "diabetes", "shakespeare", "cifar"])
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    for name in given.tasks:
        task = find(name)(data_dir=given.data_dir)
        for lr in (1e-3, 1e-2, 1e-1, 1.0):
            differs, largest = trainings(task, lr, min(given.steps, task.steps))
            print(f"{name:12} lr {lr:<6g} largest part {largest:.2g}  first difference: step {differs}", flush=True)


if __name__ == "__main__":
    main()

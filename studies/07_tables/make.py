"""Makes a task's table: every subset of Ranger21 × learning rates × seeds × three lengths, with validation curves.

usage: python studies/07_tables/make.py digits [--data-dir DIR] [--lrs 1e-3 3e-3 …] [--seeds 8] [--lengths 100 200 300]

The defaults are those of the tables in this folder. The result is written beside this script as TASK.npz; read it with
`autoranger.search.attribution.table.Table.load`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from autoranger.search.attribution.table import Table
from autoranger.search.space import lr_grid
from autoranger.search.tasks import find

HERE = Path(__file__).parent

AXES = {
    "digits": (lr_grid(3e-4, 3e-1), 8, (100, 200, 300), 10),
    "fashion": (lr_grid(1e-3, 1e-1), 5, (100, 200, 400), 10),
    "shakespeare": (lr_grid(1e-3, 1e-1), 5, (100, 200, 400), 5),
}
"""Learning rates, number of seeds, lengths and points of the curves of each table."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--lrs", type=float, nargs="+")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--lengths", type=int, nargs="+")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    task = find(args.task)("cpu", args.data_dir)
    thirds = tuple(round(task.steps * i / 3) for i in (1, 2, 3))
    lrs, seeds, lengths, points = AXES.get(args.task, (lr_grid(*task.lr_range), 5, thirds, 10))
    lrs, seeds, lengths = args.lrs or lrs, args.seeds or seeds, args.lengths or lengths
    total, done, begin = 256 * len(lrs) * seeds * sum(lengths), 0, time.perf_counter()

    def progress(steps: int) -> None:
        nonlocal done
        before, done = done, done + steps
        if before * 50 // total < done * 50 // total:
            seconds = time.perf_counter() - begin
            print(f"{done / total:4.0%}  {seconds:.0f} s, {done / seconds:,.0f} candidate-steps/s", flush=True)

    out = args.out or HERE / f"{args.task}.npz"
    Table.make(task, lrs, range(seeds), lengths, points=points, progress=progress).save(out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()

"""Which candidates should a search begin with? Regret after 8, 16 and 32 trainings, with and without what tables say.

usage: python studies/08_sample_efficiency/first.py [--seeds 40] [--write]

On each table of 07_tables the default sampler chooses, as in the first round of a search; its first proposals take
their switches from the subsets that are best on the other two tables (`best`) and then from default and presets, or
from these alone. Regrets of what its model recommends go to first.json. `--write` writes the subsets that are best on
all tables to search/recorded.toml, which searches read.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from autoranger.components.core.config import Config
from autoranger.search.attribution.table import Table
from autoranger.search.race.explore import Explorer
from autoranger.search.samplers import named
from autoranger.search.space import RECORDED, Space, lr_grid, recorded

HERE = Path(__file__).parent
LRS = lr_grid(1e-3, 1e-1)
SPACE = Space()
FIRST = 8
BUDGETS = (0, 8, 16, 32)


def at_best(table: Table, length: int) -> np.ndarray:
    """Mean of each subset over seeds at its best rate of those that all tables have `[256]`."""
    shared = [table.lrs.index(lr) for lr in LRS]
    means = table.curves[..., length, -1][:, shared].mean(axis=-1)
    best_rate: np.ndarray = np.nan_to_num(means, nan=-np.inf).max(axis=-1)
    return best_rate


def best(tables: Sequence[Table], count: int = FIRST) -> list[tuple[str, ...]]:
    """The subsets with the least mean regret over tables and lengths, best first.

    A regret's unit is the distance from the best subset to the one that three quarters are better than; 1 at most.
    """
    regrets = []
    for table in tables:
        for length in range(len(table.lengths)):
            values = at_best(table, length)
            regrets.append(np.minimum(1, (values.max() - values) / (values.max() - np.quantile(values, 0.25))))
    order = np.argsort(np.mean(regrets, axis=0), kind="stable")[:count]
    return [tuple(name for i, name in enumerate(tables[0].components) if n >> i & 1) for n in order]


def play(table: Table, first: Sequence[Sequence[str]], seed: int) -> list[float]:
    """Regret of what the model recommends after each budget, in hundredths of the metric's unit."""
    rng, explorer = np.random.default_rng(seed), Explorer(SPACE, LRS, named("bayes", seed), seed)
    leaked = [SPACE.arm(names) for names in recorded()]  # what tables say of this task, too
    named_ones = [arm for arm in SPACE.landmarks if arm not in leaked]
    explorer.sampler.landmarks = [*map(SPACE.arm, first), *named_ones]
    found = list[float]()

    def value(config: Config) -> float:
        column = rng.integers(len(table.seeds))
        return float(table.final[table.number(config.components), table.lrs.index(config.lr)][column])

    for before, after in pairwise(BUDGETS):
        explorer.tell({config: value(config) for config in explorer.ask(after - before)})
        expected = explorer.expected()
        found.append(100 * table.regret(SPACE.params(max(expected, key=expected.__getitem__))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tables = [Table.load(path) for path in sorted((HERE.parent / "07_tables").glob("*.npz"))]
    if args.write:
        lines = ",\n".join(
            f"    [{', '.join(f'{name!r}' for name in names)}]".replace("'", '"') for names in best(tables)
        )
        head = "# Subsets that are best on digits, fashion and shakespeare, best first; made by"
        RECORDED.write_text(f"{head} studies/08_sample_efficiency/first.py.\nsubsets = [\n{lines},\n]\n")
        print(RECORDED.read_text())
        return
    record: dict[str, Any] = {}
    for table in tables:
        others = [other for other in tables if other is not table]
        ways = {"presets": [], "other tables": best(others)}
        for name, first in ways.items():
            regrets = np.array([play(table, first, seed) for seed in range(args.seeds)])
            quartiles = np.quantile(regrets, [0.25, 0.5, 0.75], axis=0).round(2)
            record.setdefault(table.task, {})[name] = {
                str(budget): {
                    "mean": round(float(mean), 2),
                    "error": round(float(error), 2),
                    "quartiles": [float(q) for q in three],
                }
                for budget, mean, error, three in zip(
                    BUDGETS[1:],
                    regrets.mean(axis=0),
                    regrets.std(axis=0, ddof=1) / args.seeds**0.5,
                    quartiles.T,
                    strict=True,
                )
            }
            print(table.task, name, json.dumps(record[table.task][name]), flush=True)
    (HERE / "first.json").write_text(json.dumps({"seeds": args.seeds, **record}, indent=1) + "\n")


if __name__ == "__main__":
    main()

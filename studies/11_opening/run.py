"""What should open a race: every subset with a grid of rates, some subsets, or what a sampler chooses, and how long?

usage: python studies/11_opening/run.py [--repetitions 40] [--tables digits fashion …]

Whole races and verdicts on the tables of 07_tables, which stand in for a population: a training is a look-up, with the
residual of a random seed of the table, common to all candidates. Written to record.json for every opening: the cost in
candidate-steps and the regret of what is exported, in hundredths of the metric's unit; how often a winner was named,
and how often its true mean, over all seeds of the table, is above full Ranger21's.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from autoranger.components.core.config import Config
from autoranger.search.attribution.table import Table
from autoranger.search.clock import Clock
from autoranger.search.progress import Progress
from autoranger.search.race.baselines import ADAMW, DEFAULT
from autoranger.search.race.explore import Exploration
from autoranger.search.race.plan import SURVIVORS, Plan, make_plan
from autoranger.search.race.race import Grid, Opening, Race, best_lr
from autoranger.search.samplers import named
from autoranger.search.space import Space
from autoranger.search.study import GRID
from autoranger.search.verdict.evidence import judge

HERE = Path(__file__).parent
TABLES = HERE.parent / "07_tables"
SPACE = Space()


class LookUp:
    """Looks like a population, but knows every result; what the table does not have counts as diverged."""

    def __init__(self, table: Table, seed: int) -> None:
        self.table, self.rng, self.seeds = table, np.random.default_rng(seed), dict[int, int]()

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        progress: Callable[[int], None] = lambda done: None,
        report: Callable[[list[Config], Mapping[str, Any]], None] = lambda configs, scores: None,
    ) -> dict[str, Any]:
        for seed in seeds:
            self.seeds.setdefault(seed, int(self.rng.integers(len(self.table.seeds))))
        columns = [self.seeds[seed] for seed in seeds]
        length = int(np.abs(np.array(self.table.lengths) - steps).argmin())
        values = np.full((len(configs), len(seeds)), np.nan)
        for i, config in enumerate(configs):
            if config.lr in self.table.lrs:
                cell = self.table.number(config.components), self.table.lrs.index(config.lr)
                values[i] = self.table.curves[cell][columns, length, -1]
        progress(values.size * steps)
        scores = dict.fromkeys(splits, values)
        report(list(configs), scores)
        return scores


class Forget:
    """A record that keeps nothing."""

    def recall(self, *_: object) -> None:
        return None

    def report(self, *_: object) -> None: ...

    def finish(self, *_: object) -> None: ...


def openings(table: Table) -> Iterator[tuple[str, Plan, str]]:
    """Names, plans and who chooses."""
    whole, half = table.lengths[-1], table.lengths[-2]

    def plan(arms: int, steps: int, survivors: float = SURVIVORS) -> Plan:
        made = make_plan(whole, arms=arms, survivors=survivors)
        return replace(made, rungs=(replace(made.rungs[0], steps=steps), *made.rungs[1:]))

    yield "every subset, half length, a third kept", plan(256, half), GRID
    yield "every subset, half length, an eighth kept", plan(256, half, 1 / 8), GRID
    yield "every subset, whole length, an eighth kept", plan(256, whole, 1 / 8), GRID
    yield "64 subsets' worth, whole length, by bayes", plan(64, whole), "bayes"
    for arms in (64, 32, 16):
        yield f"{arms} subsets, half length, at random", plan(arms, half), GRID
        for sampler in ("bayes", "thompson", "tpe"):
            yield f"{arms} subsets' worth, half length, by {sampler}", plan(arms, half), sampler


def once(table: Table, plan: Plan, sampler: str, seed: int) -> tuple[float, ...]:
    """Regret of the exported config, of the leader, of the random baseline; the cost; a winner named, and rightly."""
    rates = [lr for lr in table.lrs if 9e-4 < lr < 0.11]
    population, clock, numbers = LookUp(table, seed), Clock(None, Progress()), count()
    race = Race(population, Forget(), {DEFAULT: [SPACE.default], ADAMW: [SPACE.plain]}, clock)  # type: ignore[arg-type]
    opening: Opening = Grid(SPACE.arms(plan.arms, seed), rates)
    if sampler != GRID:
        opening = Exploration(SPACE, rates, named(sampler, seed), plan.arms, seed)
    finalists = race.run(opening, plan, lambda size: list(islice(numbers, size)))
    chosen = [replace(arm, lr=best_lr(by_lr)) for arm, by_lr in finalists.items()]
    fresh = list(islice(numbers, plan.verdict_seeds))
    scores = population.train(chosen, fresh, plan.steps, splits=("valid", "test"), progress=clock.advance)
    places = {role: list(finalists).index(arm) for role, arm in race.protected.items()}
    best, finalist = next((c, f) for c, f in judge(chosen, scores, places).items() if f.exported)

    def regret(config: Config) -> float:
        return 100 * table.regret(SPACE.params(config))

    exported, default = regret(best), regret(chosen[places[DEFAULT]])
    named_one = DEFAULT not in finalist.roles
    found = exported, regret(chosen[0]), regret(chosen[places["random"]])
    return *found, clock.done, named_one, named_one and exported < default


def summary(values: np.ndarray) -> dict[str, Any]:
    """Mean, its standard error, and quartiles."""
    quartiles = [round(float(q), 3) for q in np.quantile(values, [0.25, 0.5, 0.75])]
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    return {"mean": round(float(values.mean()), 3), "error": round(error, 3), "quartiles": quartiles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--tables", nargs="+")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = HERE / "record.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for file in sorted(TABLES.glob("*.npz")):
        table = Table.load(file)
        if args.tables and table.task not in args.tables:
            continue
        for name, plan, sampler in openings(table):
            if name in record.get(table.task, {}):
                continue
            begin = time.perf_counter()
            runs = np.array([once(table, plan, sampler, seed) for seed in range(args.repetitions)])
            seconds = (time.perf_counter() - begin) / args.repetitions
            regrets = {
                role: summary(column) for role, column in zip(("exported", "leader", "random"), runs.T, strict=False)
            }
            cost = {"repetitions": args.repetitions, "cost": round(runs[:, 3].mean()), "seconds": round(seconds, 1)}
            cost |= {"winners": int(runs[:, 4].sum()), "winners_truly_better": int(runs[:, 5].sum())}
            record.setdefault(table.task, {})[name] = cost | regrets
            path.write_text(json.dumps(record, indent=1) + "\n")
            print(table.task, name, record[table.task][name], flush=True)


if __name__ == "__main__":
    main()

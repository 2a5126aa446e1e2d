"""What is each component worth? See README.md.

    python studies/21_ledger/run.py --tasks digits diabetes --data-dir data
    python studies/21_ledger/run.py --tasks --figure ledger.svg --ledger search/ledger.toml

Everything starts from AdamW with warmup and cosine. Each component is added to it, alone, in pairs and in the best set
that is found, at the learning rate that is best for just that; rates are chosen by validation data on some seeds, and
what is told comes from test data on others. `record.json` has a task's part as soon as it is done; until then what has
been trained is in `begun_TASK.jsonl`, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoranger.components.core.component import Stage, conflicts, registry
from autoranger.components.core.config import Config
from autoranger.search.attribution.effects import shapley_contrast
from autoranger.search.population import Population
from autoranger.search.race.baselines import COSINE, DECAYS, PRESETS
from autoranger.search.space import lr_grid, neighbours
from autoranger.search.tasks import create
from autoranger.search.verdict.statistics import Difference, paired_difference

HERE = Path(__file__).parent
EXTENSIONS = 3
"""How often the grid of rates is extended where the best one lies on its edge."""


@dataclass(frozen=True)
class Effort:
    """How much is trained of a task.

    Args:
        choosing: seeds on which rates are chosen.
        telling: fresh seeds on which effects are measured.
        paired: components, the best ones alone, of which all pairs are tried.
        largest: components of the best set, at most.
    """

    choosing: int
    telling: int
    paired: int
    largest: int


EFFORTS = {
    "digits": Effort(32, 64, 12, 5),
    "diabetes": Effort(32, 64, 12, 5),
    "shakespeare": Effort(1, 8, 5, 3),
    "fashion": Effort(2, 32, 8, 4),
    "cifar": Effort(2, 12, 6, 4),
    "cifar_nf": Effort(1, 6, 3, 3),
}

WITHOUT = "without "

Set = tuple[str, ...]
"""Components that are added, in the order of the registry."""


class Kept:
    """A population whose results are kept in a file.

    Args:
        population: trains.
        path: of the file, one line for each chunk of candidates.
    """

    def __init__(self, population: Population, path: Path) -> None:
        self.population, self.path = population, path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known: dict[str, list[float]] = {
            name: values for line in lines for name, values in json.loads(line).items()
        }

    def train(self, configs: Sequence[Config], seeds: Sequence[int], steps: int, split: str) -> Any:
        """The metric `[K, S]` on a part of the data; see `Population.train`."""
        names = {config: name_of([config.to_dict(), [*seeds], steps, split]) for config in configs}
        fresh = [config for config in configs if names[config] not in self.known]

        def keep(part: list[Config], scores: Mapping[str, Any]) -> None:
            found = {names[config]: row.tolist() for config, row in zip(part, scores[split], strict=True)}
            with self.path.open("a") as file:
                file.write(json.dumps(found) + "\n")
            self.known.update(found)

        among = configs if 0 < len(fresh) < len(configs) else ()
        self.population.train(fresh, seeds, steps, splits=(split,), report=keep, among=among)
        return np.array([self.known[names[config]] for config in configs])


def name_of(training: Any) -> str:
    """A short name of what is trained."""
    return hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()[:16]


class Ledger:
    """The entries of one task.

    Args:
        name: of the task.
        data_dir: folder with its data.
    """

    def __init__(self, name: str, data_dir: Path | None) -> None:
        self.task, self.effort, seeds = create(name, "cpu", data_dir), EFFORTS[name], count(700_000_000)
        self.population = Kept(Population(self.task), begun(name))
        self.fresh: Callable[[int], list[int]] = lambda size: list(islice(seeds, size))
        self.rates = lr_grid(*self.task.lr_range)
        self.base = Config.preset(PRESETS[COSINE])
        chosen = self.best({(): [replace(self.base, weight_decay=decay) for decay in DECAYS]})[()]
        self.base = replace(chosen, lr=self.base.lr)

    def arms(self, names: Set) -> list[Config]:
        """The base with these components, and without what they exclude: one arm, or one for each weight decay.

        A name after `WITHOUT` is that of a component of the base that is taken out.
        """
        if any(name.startswith(WITHOUT) for name in names):
            left = {name: given for name, given in self.base.components.items() if WITHOUT + name not in names}
            return [replace(self.base, components=left)]
        kept = {name: given for name, given in self.base.components.items() if not conflicts_with(name, names)}
        arm = replace(self.base, components={**kept, **{name: {} for name in names}})
        unit = math.prod(registry[name].decay_unit for name in names)
        if unit and any(registry[name].stage is Stage.DECAY or registry[name].decay_unit != 1 for name in names):
            return [replace(arm, weight_decay=decay * unit) for decay in DECAYS]
        return [arm]

    def best(self, arms: Mapping[Set, Sequence[Config]], rates: Mapping[Set, Sequence[float]] | None = None) -> Any:
        """The candidate with the best mean of each set: arm and learning rate, chosen on seeds of their own."""
        seeds, known = self.fresh(self.effort.choosing), dict[Set, dict[Config, float]]()
        wanted = [
            (names, replace(arm, lr=lr))
            for names in arms
            for arm in arms[names]
            for lr in (rates or {}).get(names, self.rates)
        ]
        for _ in range(1 + EXTENSIONS):
            values = self.population.train([config for _, config in wanted], seeds, self.task.steps, "valid")
            for (names, config), row in zip(wanted, values, strict=True):
                known.setdefault(names, {})[config] = float(np.nan_to_num(row.mean(), nan=-np.inf))
            leaders = {names: max(found, key=found.__getitem__) for names, found in known.items()}
            around = {
                names: [replace(leader, lr=lr) for lr in neighbours(leader.lr)] for names, leader in leaders.items()
            }
            wanted = [(names, c) for names, configs in around.items() for c in configs if c not in known[names]]
            if not wanted:
                break
        self.chosen = {names: known[names][leader] for names, leader in leaders.items()}
        return leaders

    def told(self, configs: Mapping[Set, Config]) -> dict[Set, Any]:
        """The test metric `[S]` of candidates on fresh seeds; a training that diverged counts as the worst of all."""
        values = self.population.train(list(configs.values()), self.fresh(self.effort.telling), self.task.steps, "test")
        return dict(zip(configs, np.nan_to_num(values, nan=np.nanmin(values)), strict=True))

    def entries(self, say: Callable[[str], None]) -> dict[str, Any]:
        """The whole ledger of the task, as plain data."""
        singles: list[Set] = [(name,) for name in registry.own() if name not in self.base.components]
        parts: list[Set] = [(WITHOUT + name,) for name in self.base.components]
        alone = self.best({names: self.arms(names) for names in [(), *singles, *parts]})
        order, told = sorted(singles, key=lambda names: -self.chosen[names]), self.told(alone)
        found = {
            "base": {"lr": alone[()].lr, "weight_decay": alone[()].weight_decay, **spread(told[()])},
            "alone": {names[0]: self.entry(names, alone, told, len(singles)) for names in [*order, *parts]},
        }
        say("alone")
        lost = {
            names: alone[names]
            for names in [(), *singles]
            if found["alone"].get(*names or ("",), {}).get("high", 0) < 0
        }
        again = self.told({(): alone[()], **lost})
        found["negative again"] = {
            names[0]: asdict(paired_difference(again[names], again[()], comparisons=len(lost))) for names in lost
        }
        say("negative ones again")
        found["pairs"] = self.pairs(order[: self.effort.paired], alone)
        say("pairs")
        found["best"] = self.best_set([name for (name,) in order[: self.effort.paired]])
        say("best set")
        return found

    def entry(
        self, names: Set, alone: Mapping[Set, Config], told: Mapping[Set, Any], comparisons: int
    ) -> dict[str, Any]:
        """What a set adds to the base."""
        config, gone = alone[names], [name for name in self.base.components if name not in alone[names].components]
        instead = {"instead of": gone} if gone else {}
        gain = paired_difference(told[names], told[()], comparisons=comparisons)
        return {"lr": config.lr, "weight_decay": config.weight_decay, **instead, **rounded(gain)}

    def pairs(self, singles: Sequence[Set], alone: Mapping[Set, Config]) -> list[dict[str, Any]]:
        """What pairs add to the base, and beyond the sum of their parts."""
        every = [ordered({*a, *b}) for a, b in combinations(singles, 2) if not conflicts([*a, *b])]
        chosen = self.best({names: self.arms(names) for names in every})
        told = self.told({names: alone[names] for names in [(), *singles]} | chosen)
        return [
            {"components": names, "lr": chosen[names].lr}
            | {"gain": rounded(paired_difference(told[names], told[()], comparisons=len(every)))}
            | {
                "interaction": rounded(
                    paired_difference(told[names] + told[()], told[names[:1]] + told[names[1:]], comparisons=len(every))
                )
            }
            for names in every
        ]

    def best_set(self, names: Sequence[str]) -> dict[str, Any]:
        """The set that components are added to one by one, as long as that helps, and what each is worth in it."""
        chosen: Set = ()
        while len(chosen) < self.effort.largest:
            tried = [
                ordered({*chosen, name}) for name in names if name not in chosen and not conflicts([*chosen, name])
            ]
            self.best({names: self.arms(names) for names in [chosen, *tried]})
            leader = max(tried, key=self.chosen.__getitem__, default=chosen)
            if self.chosen[leader] <= self.chosen[chosen]:
                break
            chosen = leader
        subsets = [
            tuple(name for i, name in enumerate(chosen) if number >> i & 1) for number in range(2 ** len(chosen))
        ]
        told = self.told(self.best({names: self.arms(names) for names in subsets}))
        values = np.stack([told[names] for names in subsets])
        worth = [shapley_contrast(len(chosen), i) @ values for i in range(len(chosen))]
        nothing = np.zeros(values.shape[1])
        return {
            "components": chosen,
            "gain": rounded(paired_difference(told[chosen], told[()])),
            "shapley": {
                name: rounded(paired_difference(value, nothing, comparisons=len(chosen)))
                for name, value in zip(chosen, worth, strict=True)
            },
        }


def conflicts_with(name: str, names: Iterable[str]) -> bool:
    """Whether a component is excluded by one of others, or is one of them."""
    return name in names or any(registry[name].excludes(registry[other]) for other in names)


def ordered(names: Iterable[str]) -> Set:
    """Names in the order of the registry."""
    given = set(names)
    return tuple(name for name in registry if name in given)


def spread(values: Any) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    return {"test": round(float(values.mean()), 5), "sd": round(float(values.std(ddof=1)), 5)}


def rounded(found: Difference) -> dict[str, float]:
    """A difference as plain data."""
    return {key: float(f"{value:.4g}") for key, value in asdict(found).items() if key != "seeds"} | {
        "seeds": found.seeds
    }


def begun(task: str) -> Path:
    """The file of a task that is not done yet."""
    return HERE / f"begun_{task}.jsonl"


def read() -> dict[str, Any]:
    """The record."""
    path = HERE / "record.json"
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=list(EFFORTS), choices=list(EFFORTS))
    parser.add_argument("--data-dir", type=Path, help="folder of data files")
    parser.add_argument("--figure", type=Path, help="draw the record to this file")
    parser.add_argument("--ledger", type=Path, help="write to this file what reports compare with")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in asked.tasks:
        if name in read():
            continue
        began, cpu = time.time(), time.process_time()
        ledger = Ledger(name, asked.data_dir)
        found = ledger.entries(
            lambda part, name=name, began=began: print(f"{name}: {part}, {time.time() - began:.0f} s", flush=True)
        )
        about = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
            "cpu seconds": round(time.process_time() - cpu),
            "metric": ledger.task.score_name,
            "steps": ledger.task.steps,
            "effort": asdict(ledger.effort),
        }
        record = read() | {name: about | found}
        in_order = {task: record[task] for task in EFFORTS if task in record}
        (HERE / "record.json").write_text(json.dumps(in_order, indent=1) + "\n")
        begun(name).unlink(missing_ok=True)
    from page import draw, table, write_ledger

    print(table(read()))
    if asked.figure:
        draw(read(), asked.figure)
    if asked.ledger:
        write_ledger(read(), asked.ledger)


if __name__ == "__main__":
    main()

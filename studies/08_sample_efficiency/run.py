"""Simple regret against evaluations: our samplers and their peers, on tables.

usage: python studies/08_sample_efficiency/run.py [--seeds 100] [--slow 20] [--control 40] [--problems …] [--draw]

An evaluation is the validation metric of one candidate at the end of a training with one random seed, looked up in a
table; a candidate is a subset with a learning rate of the table's grid. After 32, 64, 128 and 256 evaluations each
sampler recommends one, and its regret is how much less its true mean (over the table's seeds) is than the best one's.
Everybody recommends the best trial, as `study.best_trial` does; who has a recommendation of its own (`recommend` of our
samplers, SMAC's incumbent) is judged by that as well. A control tells how much of this is due to the model, and how
much to the choice of trials: the default sampler's model recommends one of the trials of TPE and of random search.
PriorBand trains shorter runs too, which cost their share of an evaluation; its prior is full Ranger21, which ours
starts with. SMAC and NePS are left out where they are not installed (pip install smac neural-pipeline-search). Results
are kept in record.json; what is there is not run again. `--draw` only makes the figure and the table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from autoranger.search.attribution.table import Table
from autoranger.search.samplers import SAMPLERS, named
from autoranger.search.samplers.base import ModelSampler
from autoranger.search.samplers.bayes import BayesSampler
from autoranger.search.space import lr_grid

HERE = Path(__file__).parent
TABLES = HERE.parent / "07_tables"
BUDGETS = (32, 64, 128, 256)
SLOW = ("comband", "gp", "smac", "priorband")
CONTROLS = ("tpe", "random")
PEERS = {"smac": "smac", "priorband": "neps"}

Result = tuple[dict[str, Any], float]
"""Parameters and a noisy value; higher is better."""


class Study:
    """Any sampler of Optuna."""

    def __init__(self, name: str, table: Table, seed: int, lengths: Sequence[int] = ()) -> None:
        self.space = dict(table.distributions())
        self.study = optuna.create_study(direction="maximize", sampler=named(name, seed=seed))

    def ask(self) -> tuple[dict[str, Any], int | None]:
        self.trial = self.study.ask(self.space)
        return self.trial.params, None

    def tell(self, value: float) -> None:
        if np.isnan(value):
            self.study.tell(self.trial, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(self.trial, value)

    def recommended(self) -> dict[str, Any] | None:
        sampler = self.study.sampler
        return sampler.recommend(self.study) if isinstance(sampler, ModelSampler) else None


class Modelled(Study):
    """Any sampler of Optuna, and what the default sampler's model makes of its trials."""

    def recommended(self) -> dict[str, Any] | None:
        return BayesSampler(seed=0).recommend(self.study)


class Smac:
    """SMAC3's facade for hyperparameter optimisation: a random forest, and races against the incumbent."""

    def __init__(self, name: str, table: Table, seed: int, lengths: Sequence[int] = ()) -> None:
        from ConfigSpace import Categorical, ConfigurationSpace, OrdinalHyperparameter
        from smac import HyperparameterOptimizationFacade, Scenario

        space = ConfigurationSpace(seed=seed)
        space.add([Categorical(c, [False, True], default=True) for c in table.components])
        space.add(OrdinalHyperparameter("lr", list(table.lrs)))
        self.folder, self.worst = tempfile.TemporaryDirectory(), float(np.nanmin(table.final))
        scenario = Scenario(
            space, n_trials=10_000, seed=seed, deterministic=False, output_directory=Path(self.folder.name)
        )
        self.smac = HyperparameterOptimizationFacade(
            scenario, lambda config, seed=0: 0.0, overwrite=True, logging_level=False
        )

    def ask(self) -> tuple[dict[str, Any], int | None]:
        self.info = self.smac.ask()
        return plain(self.info.config), None

    def tell(self, value: float) -> None:
        from smac.runhistory.dataclasses import TrialValue

        self.smac.tell(self.info, TrialValue(cost=-(self.worst if np.isnan(value) else value)))

    def recommended(self) -> dict[str, Any] | None:
        incumbent = self.smac.intensifier.get_incumbent()
        return None if incumbent is None else plain(incumbent)


class PriorBand:
    """PriorBand of NePS: Hyperband whose candidates come from a prior, the incumbent's neighbourhood, or anywhere."""

    def __init__(self, name: str, table: Table, seed: int, lengths: Sequence[int] = ()) -> None:
        import neps
        import torch

        for generator in (np.random.seed, torch.manual_seed, __import__("random").seed):
            generator(seed)
        switches = {c: neps.HPOCategorical([False, True], prior=True) for c in table.components}
        rate = neps.HPOFloat(table.lrs[0], table.lrs[-1], log=True, prior=table.lrs[len(table.lrs) // 2])
        steps = neps.HPOInteger(lengths[0], lengths[-1], is_fidelity=True)
        space = neps.SearchSpace({**switches, "lr": rate, "steps": steps})
        self.band = neps.AskAndTell(neps.algorithms.priorband(space, sample_prior_first="highest_fidelity"))
        self.worst = float(np.nanmin(table.final))

    def ask(self) -> tuple[dict[str, Any], int | None]:
        self.trial = self.band.ask()
        return dict(self.trial.config), int(self.trial.config["steps"])

    def tell(self, value: float) -> None:
        self.band.tell(self.trial, -(self.worst if np.isnan(value) else value))

    def recommended(self) -> None:
        return None


def plain(config: Any) -> dict[str, Any]:
    """A configuration of SMAC with plain values."""
    return {name: bool(value) if name != "lr" else float(value) for name, value in dict(config).items()}


def regrets(player: Any, tables: list[Table], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Regret of the best trial, and of the player's own recommendation, after every budget.

    Args:
        player: asks and is told.
        tables: of one task, by length; the last one counts.
        rng: draws the seed of every evaluation.
    """
    table, spent, found = tables[-1], 0.0, []
    results: list[Result] = []
    for budget in BUDGETS:
        while spent < budget - 1e-9:
            params, length = player.ask()
            nearest = min(tables, key=lambda t: abs(t.lengths[-1] - (length or table.lengths[-1])))
            value = float(rng.choice(nearest.final[nearest.cell(params)]))
            player.tell(value)
            spent += nearest.lengths[-1] / table.lengths[-1]
            if nearest is table and not np.isnan(value):
                results.append((params, value))
        best = max(results, key=lambda result: result[1])[0]
        found.append((table.regret(best), table.regret(player.recommended() or best)))
    return found


def synthetic(seed: int, noise: float) -> Table:
    """A table of random effects of switches and pairs, with a best learning rate that depends on the subset.

    Args:
        seed: of the effects.
        noise: standard deviation of an evaluation, in units of that of the subsets at their best rates.
    """
    rng, count = np.random.default_rng(seed), 8
    switches = (np.arange(256)[:, None] >> np.arange(count)) & 1
    pairs = np.triu(0.4 * rng.normal(size=(count, count)), 1)
    effects = switches @ (rng.normal(size=count) * rng.gamma(1, 1, count)) + ((switches @ pairs) * switches).sum(axis=1)
    merits = effects / effects.std() + 0.3 * rng.normal(size=256)
    lrs = lr_grid(1e-3, 1e-1)
    best = -2 + 0.4 * (switches - 0.5) @ rng.normal(size=count)
    away = np.log10(lrs) - best[:, None]
    means = merits[:, None] - 3 * away**2 * np.where(away > 0, 1.5, 1)
    spread = noise * np.exp(np.clip(-means / 10, 0, 2))
    values = 0.9 + 0.005 * (means[..., None] + spread[..., None] * rng.normal(size=(256, len(lrs), 8)))
    curves = np.clip(values, 0, 1)[..., None, None].astype(np.float32)
    return Table("synthetic", tuple(f"c{i}" for i in range(count)), tuple(lrs), tuple(range(8)), (300,), curves)


def problems() -> Iterator[tuple[str, list[Table]]]:
    """Each with its tables by length, the last one to be judged by."""
    for path in sorted(TABLES.glob("*.npz")):
        table = Table.load(path)
        rates = [lr for lr in table.lrs if 9e-4 < lr < 0.11]
        five = [table.at(lrs=rates, length=length) for length in table.lengths]
        yield table.task, five
        if table.task == "digits":
            yield "digits, 100 steps", five[:1]
    for seed, noise in ((1, 1.0), (2, 0.5)):
        yield f"synthetic {seed}, noise {noise:g}", [synthetic(seed, noise)]


def summary(values: np.ndarray) -> dict[str, Any]:
    """Median, quartiles and mean over seeds, for every budget, in percent of the metric's unit."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    parts = {"median": median, "low": low, "high": high, "mean": values.mean(axis=0)}
    return {name: [round(100 * float(x), 4) for x in part] for name, part in parts.items()}


def measure(name: str, tables: list[Table], seeds: int) -> dict[str, Any]:
    """What a sampler does on a problem, over many seeds."""
    kind: Any = {"smac": Smac, "priorband": PriorBand}.get(name, Study)
    lengths, begin = [table.lengths[-1] for table in tables], time.perf_counter()
    players = (kind(name, tables[-1], seed, lengths) for seed in range(seeds))
    runs = np.array([regrets(p, tables, np.random.default_rng([s, 1])) for s, p in enumerate(players)])
    seconds = (time.perf_counter() - begin) / seeds
    own = {} if name in ("tpe", "gp", "random", "cmaes", "priorband") else {"recommended": summary(runs[:, :, 1])}
    return {"seeds": seeds, "seconds": round(seconds, 1), "best_trial": summary(runs[:, :, 0])} | own


def control(name: str, tables: list[Table], seeds: int) -> dict[str, Any]:
    """What the default sampler's model recommends from the trials of another sampler, over many seeds."""
    players = (Modelled(name, tables[-1], seed) for seed in range(seeds))
    runs = np.array([regrets(p, tables, np.random.default_rng([s, 1])) for s, p in enumerate(players)])
    return {"control_seeds": seeds, "modelled": summary(runs[:, :, 1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--slow", type=int, default=20, help=f"seeds of {', '.join(SLOW)}")
    parser.add_argument("--control", type=int, default=40, help=f"seeds of the control of {' and '.join(CONTROLS)}")
    parser.add_argument("--problems", nargs="+")
    parser.add_argument("--samplers", nargs="+", default=[*(n for n in SAMPLERS if n != "cmaes"), *PEERS])
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--record", type=Path, default=HERE / "record.json")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    record = json.loads(args.record.read_text()) if args.record.exists() else {}
    for problem, tables in problems():
        if args.draw or (args.problems and problem not in args.problems):
            continue
        for name in args.samplers:
            if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
                print(f"{name} is left out: {PEERS[name]} is not installed.")
                continue
            done = record.setdefault(problem, {})
            if name in done or (name == "priorband" and len(tables) == 1):
                continue
            done[name] = measure(name, tables, args.slow if name in SLOW else args.seeds)
            args.record.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{problem:24} {name:10} {done[name]}", flush=True)
        for name in CONTROLS:
            if name in record.get(problem, {}) and "modelled" not in record[problem][name]:
                record[problem][name] |= control(name, tables, args.control)
                args.record.write_text(json.dumps(record, indent=1) + "\n")
                print(f"{problem:24} {name:10} {record[problem][name]['modelled']}", flush=True)
    from figure import draw, markdown

    print(markdown(record, BUDGETS))
    draw(record, BUDGETS, HERE / "regret.png")


if __name__ == "__main__":
    main()

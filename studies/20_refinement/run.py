"""What does the refinement of the leaders' numbers bring? See README.md.

usage: python studies/20_refinement/run.py [--tasks digits diabetes] [--seeds 3]

Whole searches with the standard plan. Without the variants among the finalists, the same verdict says what the search
would have exported without a refinement, on the same fresh seeds. What both export, and the best finalist of each, is
then trained on 64 seeds that no search has seen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from autoranger.components.core.config import Config
from autoranger.search.numbers import unusual
from autoranger.search.population import Population
from autoranger.search.space import in_words
from autoranger.search.storage.record import VERDICT
from autoranger.search.storage.storage import open_storage
from autoranger.search.study import search
from autoranger.search.tasks import create
from autoranger.search.verdict.evidence import judge
from autoranger.search.verdict.outcome import Outcome

HERE = Path(__file__).parent
UNSEEN = range(900_000_000, 900_000_064)


def shown(config: Config) -> str:
    numbers = [f"{name} {value}" for name, value in unusual(config.to_dict()).items()]
    return ", ".join([in_words(config.components), f"lr {config.lr:g}", *numbers])


def chosen(configs: Sequence[Config], scores: Mapping[str, Any], roles: Mapping[str, int]) -> dict[str, Config]:
    """What is exported, and the finalist with the best mean."""
    judged = judge(configs, scores, roles)
    return {"exported": next(c for c, f in judged.items() if f.exported), "best": next(iter(judged))}


def both(outcome: Outcome, noted: Mapping[str, Any]) -> dict[str, dict[str, Config]]:
    """What a search chose with its variants, and what it would have chosen without them."""
    by_config = {Config.from_dict(r["config"]): r["scores"] for r in noted["results"]}
    roles, plain = {}, []
    for finalist in outcome.finalists:
        config = replace(Config.from_dict(finalist.config), proxy={})
        if finalist.roles or not unusual(finalist.config):
            roles |= {role: len(plain) for role in finalist.roles}
            plain.append(config)
    every = [*plain, *(config for config in by_config if config not in plain)]

    def scores(configs: Sequence[Config]) -> dict[str, Any]:
        return {split: np.array([by_config[c][split] for c in configs], dtype=float) for split in ("valid", "test")}

    return {"with": chosen(every, scores(every), roles), "without": chosen(plain, scores(plain), roles)}


def once(name: str, seed: int) -> dict[str, Any]:
    task = create(name, "cpu", None)
    with tempfile.TemporaryDirectory() as folder:
        storage, begin = open_storage(f"{folder}/journal"), time.process_time()
        outcome = search(task, storage, "s", space="ranger21", seed=seed)
        seconds = time.process_time() - begin
        noted = optuna.load_study(study_name="s", storage=storage).user_attrs[VERDICT]
    found, refine = both(outcome, noted), outcome.evidence.plan.refine
    assert refine is not None
    variants = sum(not f.roles and bool(unusual(f.config)) for f in outcome.finalists)
    work = (refine.trainings + variants * outcome.evidence.plan.verdict_seeds) * task.steps
    configs = list(dict.fromkeys(config for one in found.values() for config in one.values()))
    scores = Population(task).train(configs, list(UNSEEN), task.steps, splits=("valid", "test"))
    row: dict[str, Any] = {"task": name, "seed": seed, "variants": variants, "verdict": outcome.evidence.verdict}
    row |= {"cpu seconds": round(seconds), "share of work": round(work / outcome.work, 3)}
    for which in ("exported", "best"):
        a, b = (found[side][which] for side in ("with", "without"))
        row[which] = {"with": shown(a), "without": shown(b)}
        for split in ("valid", "test"):
            one, other = (scores[split][configs.index(c)] for c in (a, b))
            gain = one - other
            row[which][split] = [round(float(x), 4) for x in (other.mean(), one.mean(), gain.mean())]
            row[which][split].append(round(float(gain.std(ddof=1)) / len(gain) ** 0.5, 4))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["digits", "diabetes"])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = HERE / "record.json"
    record: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for name in args.tasks:
        for seed in range(args.seeds):
            if not any((row["task"], row["seed"]) == (name, seed) for row in record):
                record.append(once(name, seed))
                path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
                print(json.dumps(record[-1], indent=1, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()

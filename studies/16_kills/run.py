"""Kills searches at random moments, a hundred times for each kind of storage, and resumes them each time.

    python studies/16_kills/run.py [--kills 100] [--seed 0]

Processes are forked from this one, so that few kills fall into the seconds in which torch is imported.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests import kills  # noqa: E402

MOST = 8
"""Kills of one search, at most."""


def place(folder: Path, kind: str) -> str:
    """The storage of a search in a folder."""
    return f"sqlite:///{folder}/s.db" if kind == "sqlite" else str(folder / "journal")


def said(status: int) -> str:
    """How a process ended."""
    number = -status if status < 0 else status - 128
    if number in {*signal.Signals}:
        return signal.Signals(number).name
    return "finished" if status == 0 else f"status {status}"


def kill(kind: str, count: int, draw: random.Random, base: Path) -> dict[str, object]:
    """Kills and resumes searches until `count` processes have been killed; returns what came of them."""
    whole = base / "whole"
    whole.mkdir(parents=True)
    begin = time.monotonic()
    kills.run(whole, place(whole, kind), [], draw)
    seconds = time.monotonic() - begin
    half = kills.noted(whole / "process-0.log") // 2
    ends, problems, searches, unequal = Counter[str](), list[str](), 0, 0
    while sum(ends.values()) - ends["finished"] < count:
        folder = base / str(searches)
        folder.mkdir()
        after = [draw.randrange(1, half) for _ in range(MOST)]
        ends.update(map(said, kills.run(folder, place(folder, kind), after, draw)))
        problems += kills.wrong(folder, place(folder, kind))
        same = (folder / "tuned.toml").read_bytes() == (whole / "tuned.toml").read_bytes()
        unequal += not (same and kills.trained(place(folder, kind)) == kills.trained(place(whole, kind)))
        searches += 1
        print(kind, searches, dict(ends), problems, unequal, flush=True)
    return {"searches": searches, "ends": dict(ends), "problems": problems, "unequal": unequal, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        found = {
            kind: kill(kind, chosen.kills, random.Random(chosen.seed), Path(scratch, kind))
            for kind in ("journal", "sqlite")
        }
    (HERE / "record.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

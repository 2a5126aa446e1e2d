"""What to do where there is no g++: the compiler of the package `ziglang`, recorded operations, or the step as it is.

usage: python studies/04_step_time/compilers.py [--threads 1] [--models mlp gpt] [--rounds 15]

All step over the same parameters in turns; medians of the ratios to torch's fused AdamW in the same round, in
`compilers.json`. `ziglang` has no OpenMP, and so one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from autoranger import Config
from autoranger.bench import MODELS, TOTAL_STEPS
from autoranger.components.optimizer import layout
from autoranger.search.timing import take_turns, time_step

ZIG = f"{sys.executable} -m ziglang c++"


@contextmanager
def compiler(command: str) -> Iterator[None]:
    """Compiles anew, by this command."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, CXX=command, XDG_CACHE_HOME=folder):
        yield


def contestants(params: list[nn.Parameter]) -> tuple[dict[str, Optimizer], dict[str, float]]:
    """Optimizers that have made their first step, and the seconds that it took."""
    config, found, first = Config.preset("ranger21", lr=1e-5), dict[str, Optimizer](), dict[str, float]()

    def add(name: str, optimizer: Optimizer) -> None:
        found[name], first[name] = optimizer, time_step(optimizer, params)

    add("torch AdamW (fused)", AdamW(params, lr=1e-5, fused=True))
    with compiler("g++"):
        add("g++", config.build(params, TOTAL_STEPS, compile=True))
    with compiler(ZIG):
        add("ziglang", config.build(params, TOTAL_STEPS, compile=True))
    add("recorded operations", config.build(params, TOTAL_STEPS, compile=False))
    with patch.object(layout, "interpreter", lambda *_: None):
        add("the step's own operations", config.build(params, TOTAL_STEPS, compile=False))
    return found, first


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=["mlp", "gpt", "resnet50"])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = Path(__file__).with_suffix(".json")
    record = json.loads(path.read_text()) if path.exists() else {}
    for model in args.models:
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(s, generator=generator) * 0.02) for s in MODELS[model]()]
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator) * 1e-3
        optimizers, first = contestants(params)
        seconds = take_turns(optimizers, params, args.rounds)
        reference = seconds["torch AdamW (fused)"]
        result = {
            name: {
                "ratio": float(np.median(s / reference)),
                "quartiles": np.quantile(s / reference, (0.25, 0.75)).tolist(),
                "first step": first[name],
            }
            for name, s in seconds.items()
        }
        load = os.getloadavg()[0]
        record[model] = {"threads": args.threads, "rounds": args.rounds, "load": load, "steps": result}
        path.write_text(json.dumps(record, indent=1) + "\n")
        for name, x in result.items():
            print(f"{model:9s} {name:26s} {x['ratio']:7.2f}  first step {x['first step']:.2f} s", flush=True)


if __name__ == "__main__":
    main()

"""How long a step takes, for four models: runs `autoranger bench --peers` for each, and keeps record and figure.

usage: python studies/04_step_time/run.py [--device cpu] [--models gpt resnet50 …] [--tune] [--compiled]

Compiled steps are made anew, so that the time of a first step is that of a machine that has never seen it; the second
time, from the cache, is recorded beside it. With `--device cuda` other things are compared (see `gpu.py`), and
with `--tune` sizes of tiles, too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import gpu
import torch
from torch import nn

from autoranger import Config
from autoranger.bench import MODELS, bench
from autoranger.components.kernel.cpp import build
from autoranger.figures import draw_bench

HERE = Path(__file__).parent
ROUNDS = {"mlp": 1000}
GPU_MODELS = ["gpt", "resnet50", "mlp"]


def first_steps(model: str, device: str) -> dict[str, float]:
    """Seconds of the first step of full Ranger21: compiled anew, and from the cache."""
    found = {}
    for how in ("anew", "from the cache"):
        build.build_with.cache_clear()
        params = [nn.Parameter(torch.zeros(shape, device=device)) for shape in MODELS[model]()]
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer = Config.preset("ranger21").build(params, total_steps=10)
        begin = time.perf_counter()
        optimizer.step()
        found[how] = time.perf_counter() - begin
    return found


def on_gpu(models: list[str], device: str, tune: bool, compiled: bool) -> None:
    """Writes `record_gpu.json`, and prints what is in it."""
    path = HERE / "record_gpu.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    for model in models:
        result = record.setdefault(model, {})
        if compiled:
            result["torch.compile"] = found = gpu.timings(gpu.by_inductor(), model, device, rounds=30)
        else:
            result |= gpu.measure(model, device, rounds=30)
            found = result["timings"]
            print(f"{model}: {result['launches of ranger21 (Triton)']} launches, {result['terabytes per second']} TB/s")
            print(f"  both ways differ by {result['disagreement']:.2g} learning rates after seven steps")
        for name, timing in found.items():
            print(f"  {timing['median'] * 1e6:10.1f} µs {timing['ratio']:8.2f}  {name}", flush=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        if tune:
            result["tuning"] = gpu.tune(model, device, rounds=20)
            path.write_text(json.dumps(record, indent=1) + "\n")
            print(*(f"{seconds * 1e6:10.1f} µs  {tile}" for tile, seconds in result["tuning"].items()), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--compiled", action="store_true", help="on a GPU: only what `torch.compile` makes of the step")
    args = parser.parse_args()
    kind = args.device.split(":")[0]
    if kind == "cuda":
        on_gpu(args.models or GPU_MODELS, args.device, args.tune, args.compiled)
        return
    path = HERE / f"record_{kind}.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    for model in args.models or list(MODELS):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            firsts = first_steps(model, args.device)
            result = bench(model, device=args.device, rounds=ROUNDS.get(model, 40), peers=True)
            record[model] = result.to_dict() | {"first_step": firsts}
            path.write_text(json.dumps(record, indent=1) + "\n")
            draw_bench(result, HERE / f"{model}_{kind}.png")
            full = next(t for t in result.timings if t.name == "ranger21")
            print(
                f"{model}: {full.median * 1e3:.3g} ms, {full.ratio:.2f} × fused AdamW, first step {firsts}", flush=True
            )


if __name__ == "__main__":
    main()

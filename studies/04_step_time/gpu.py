"""How long a step takes on a GPU: fused AdamW, and ours as operations, as Triton kernels and by `torch.compile`.

Called by `run.py --device cuda`. A contestant takes `TOGETHER` steps at once before the device is waited for, as it
would in a training, and in turns with the others. Each is measured as Python calls it, where the time to launch may
be what counts, and replayed as a CUDA graph, where only the device does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import inductor
import numpy as np
import torch
from torch import nn
from torch.optim import AdamW

from autoranger import Config
from autoranger.bench import MODELS, machine
from autoranger.components.kernel.triton import kernel as triton_kernel
from autoranger.components.kernel.triton.source import TILES

TOGETHER = 5
REFERENCE = "torch AdamW (fused)"

ADAMW_NUMBERS = 7.0  # read g, θ, m and v; write θ, m and v
RANGER21_NUMBERS = 13.4  # 6 + 7.4: see the README; 10.4 where the second pass finds what it reads in the cache


class Eager:
    """Some steps, one after another."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        for _ in range(TOGETHER):
            self.optimizer.step()


class Captured:
    """The same as a CUDA graph. The steps before it compile and allocate."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer  # whose state the graph works on
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                optimizer.step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            Eager(optimizer).step()

    def step(self) -> None:
        self.graph.replay()


def take_turns(ways: Mapping[str, Any], device: str, rounds: int) -> dict[str, Any]:
    """Seconds of each way's steps, divided by their number; the order changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order, rng = list(ways), np.random.default_rng(0)
    for _ in range(3 + rounds):
        rng.shuffle(order)
        for name in order:
            wait(device)
            begin = time.perf_counter()
            ways[name].step()
            wait(device)
            seconds[name].append((time.perf_counter() - begin) / TOGETHER)
    return {name: np.array(taken[3:]) for name, taken in seconds.items()}


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def contestants() -> dict[str, Callable[[list[nn.Parameter]], Any]]:
    found: dict[str, Callable[[list[nn.Parameter]], Any]] = {
        REFERENCE: lambda params: AdamW(params, lr=1e-5, fused=True, capturable=True),
        "torch AdamW (foreach)": lambda params: AdamW(params, lr=1e-5, foreach=True, capturable=True),
    }
    for name in ("adamw", "ranger21"):
        config = Config.preset(name, lr=1e-5)
        for how, compiled in (("Triton", True), ("operations", False)):
            found[f"{name} ({how})"] = lambda params, config=config, compiled=compiled: config.build(  # type: ignore[misc]
                params, 1_000_000, compile=compiled
            )
    return found


def by_inductor(**options: Any) -> dict[str, Callable[[list[nn.Parameter]], Any]]:
    """What is compared once `torch.compile` is done, which takes a minute for each model."""
    config = Config.preset("ranger21", lr=1e-5)
    both = {name: build for name, build in contestants().items() if name in (REFERENCE, "ranger21 (Triton)")}
    return both | {
        "ranger21 (torch.compile)": lambda params: inductor.Compiled(config, params, 1_000_000, options=options)
    }


def parameters(model: str, device: str) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter((torch.randn(s, generator=generator) * 0.02).to(device)) for s in MODELS[model]()]
    for p in params:
        p.grad = (torch.randn(p.shape, generator=generator) * 1e-3).to(device)
    return params


def disagreement(model: str, device: str) -> float:
    """The largest difference of any parameter between both ways after seven steps, relative to the learning rate."""
    both = []
    for compiled in (True, False):
        params = parameters(model, device)
        optimizer = Config.preset("ranger21", lr=1e-3).build(params, 10, compile=compiled)
        for _ in range(7):
            optimizer.step()
        both.append(params)
    return max(float((p - q).abs().max()) for p, q in zip(*both, strict=True)) / 1e-3


def launches(model: str, device: str) -> int:
    """How many kernels a step of full Ranger21 launches."""
    counted = []
    original = triton_kernel.launch
    optimizer = Config.preset("ranger21").build(parameters(model, device), 10, compile=True)
    triton_kernel.launch = lambda kernels, arguments: counted.append(len(list(kernels)))
    try:
        optimizer.step()
    finally:
        triton_kernel.launch = original
    return sum(counted)


def timings(
    builds: Mapping[str, Callable[[list[nn.Parameter]], Any]], model: str, device: str, rounds: int
) -> dict[str, dict[str, float]]:
    """Medians and quartiles of a step, in seconds, and the ratio to fused AdamW in the same round."""
    params = parameters(model, device)
    ways: dict[str, Any] = {}
    first: dict[str, float] = {}
    for name, build in builds.items():
        begin = time.perf_counter()
        ways[name] = Eager(optimizer := build(params))
        optimizer.step()
        wait(device)
        first[name] = time.perf_counter() - begin
        ways[f"{name}, graph"] = Captured(build(params))
    seconds = take_turns(ways, device, rounds)
    found = {}
    for name, taken in seconds.items():
        low, median, high = np.quantile(taken, (0.25, 0.5, 0.75)).tolist()
        reference = seconds[f"{REFERENCE}, graph" if name.endswith("graph") else REFERENCE]
        found[name] = {"median": median, "low": low, "high": high, "ratio": float(np.median(taken / reference))}
        if name in first:
            found[name]["first"] = first[name]
    return found


def measure(model: str, device: str, rounds: int) -> dict[str, Any]:
    """All contestants but `torch.compile`, and what is known of our kernels besides."""
    params, found = parameters(model, device), timings(contestants(), model, device, rounds)
    size = sum(p.numel() for p in params)
    bytes_moved = {REFERENCE: 4 * size * ADAMW_NUMBERS, "ranger21 (Triton)": 4 * size * RANGER21_NUMBERS}
    return {
        "model": model,
        "parameters": size,
        "tensors": len(params),
        "rounds": rounds,
        "timings": found,
        "launches of ranger21 (Triton)": launches(model, device),
        "terabytes per second": {
            name: moved / found[f"{name}, graph"]["median"] / 1e12 for name, moved in bytes_moved.items()
        },
        "disagreement": disagreement(model, device),
        "machine": machine(device),
    }


def tune(model: str, device: str, rounds: int) -> dict[str, float]:
    """Median seconds of full Ranger21 as a graph, by the size of a tile and how many numbers an item has."""
    usual, params = (dict(TILES), triton_kernel.ITEM), parameters(model, device)
    ways: dict[str, Any] = {}
    try:
        for rows, columns in ((1, 512), (2, 256), (4, 128), (4, 256), (8, 128)):
            for item in (1 << 12, 1 << 13, 1 << 14):
                TILES.update({True: (rows, columns), False: (1, rows * columns)})
                triton_kernel.ITEM = item
                optimizer = Config.preset("ranger21", lr=1e-5).build(params, 1_000_000, compile=True)
                ways[f"{rows} x {columns}, {item}"] = Captured(optimizer)
    finally:
        TILES.update(usual[0])
        triton_kernel.ITEM = usual[1]
    return {name: float(np.median(taken)) for name, taken in take_turns(ways, device, rounds).items()}

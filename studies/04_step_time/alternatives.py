"""What else was tried to make the step fast, on one GPT: each alternative against the kernel in the same run.

usage: python studies/04_step_time/alternatives.py

- blocks: the recorded step as operations of torch on blocks of rows, without a compiler (`compile=False`);
- operations: the step as operations of torch on whole stacks of tensors, as components say it;
- one graph: `torch.compile` of the whole step, all stacks in one graph;
- one stack, any shape: `torch.compile(dynamic=True)` of the step of a single stack, called for each;
- kernel: the recorded step in C++, and variants of it that undo one of its decisions.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoranger import Config
from autoranger.bench import MODELS, machine
from autoranger.components.core.step import Step
from autoranger.components.kernel.cpp import build, launch
from autoranger.components.kernel.interpreter import interpret
from autoranger.components.optimizer.layout import ParameterLayout
from autoranger.components.optimizer.stacking import gather

HERE = Path(__file__).parent
ROUNDS = 30
CONFIG = Config.preset("ranger21", lr=1e-5)


def parameters() -> list[nn.Parameter]:
    params = [nn.Parameter(torch.randn(shape) * 0.02) for shape in MODELS["gpt"]()]
    for p in params:
        p.grad = torch.randn_like(p) * 1e-3
    return params


def bound(compiled: bool) -> ParameterLayout:
    params = parameters()
    optimizer = CONFIG.build(params, total_steps=10**6)
    return ParameterLayout(CONFIG, optimizer.param_groups, {}, compiled)


def uninterpreted() -> ParameterLayout:
    own = bound(False)
    own.interpreter = None
    return own


def one_graph() -> Callable[[], None]:
    own = uninterpreted()
    own.core.forward = torch.compile(own.core.forward, fullgraph=True)  # type: ignore[method-assign]
    return own.step


def one_stack_any_shape() -> Callable[[], None]:
    """As many steps as there are stacks, all of which share one compiled function of any shape."""
    own = bound(False)
    steps = []
    for members in own.members:
        step = Step([CONFIG], 10**6, dtype=torch.float32, device=torch.device("cpu"))
        theta = gather(members)
        step.add(theta, matrix=members[0].dim() > 1)
        steps.append((step, theta, members))

    def one(step: Step, theta: torch.Tensor, grad: torch.Tensor) -> None:
        step([theta], [grad])

    torch._dynamo.config.recompile_limit = 64  # vectors, stacks and matrices are compiled apart
    compiled = torch.compile(one, dynamic=True)

    def run() -> None:
        for step, theta, members in steps:
            compiled(step, theta, gather([m.grad for m in members]))

    return run


def operations() -> Callable[[], None]:
    return uninterpreted().step


def blocks(size: int) -> Callable[[], None]:
    """With blocks of that many numbers, which is looked up in every step."""

    def patched(call: Callable[[], Any]) -> Any:
        usual, interpret.BLOCK = interpret.BLOCK, size
        result = call()
        interpret.BLOCK = usual
        return result

    own: ParameterLayout = patched(lambda: bound(False))
    return lambda: patched(own.step)


def kernel(change: Callable[[str], str] = lambda source: source) -> Callable[[], None]:
    original = launch.build
    launch.build = lambda source: original(change(source))
    try:
        return bound(True).step
    finally:
        launch.build = original


def back_and_forth(source: str) -> str:
    """The second pass from the last row to the first, which the first pass has left in the cache."""
    begin = source.index("static void pass_1_1")
    backwards = "for (int64_t r = end; r-- > begin;) {"
    return source[:begin] + source[begin:].replace("for (int64_t r = begin; r < end; ++r) {", backwards)


def no_sharing(source: str) -> str:
    """Every tensor by one thread, whatever its size."""
    return source.replace("LARGE = 1 << 15", "LARGE = int64_t(1) << 62")


def fused_products(source: str) -> str:
    return '#pragma GCC optimize("fp-contract=fast")\n' + source


ALTERNATIVES: dict[str, Callable[[], Callable[[], None]]] = {
    "kernel": kernel,
    "kernel, second pass backwards": lambda: kernel(back_and_forth),
    "kernel, products fused into sums": lambda: kernel(fused_products),
    "kernel, one thread for each tensor": lambda: kernel(no_sharing),
    **{f"blocks of {size:,}": partial(blocks, size) for size in (1 << 14, 1 << 16, 1 << 18, interpret.BLOCK, 1 << 20)},
    "operations": operations,
    "torch.compile, one stack of any shape": one_stack_any_shape,
    "torch.compile, one graph": one_graph,
}


def main() -> None:
    reference = torch.optim.AdamW(parameters(), fused=True)
    steps: dict[str, Callable[[], None]] = {"torch AdamW (fused)": reference.step}
    first: dict[str, float] = {}
    for name, make in ALTERNATIVES.items():
        begin = time.perf_counter()
        with torch.no_grad():
            steps[name] = make()
            steps[name]()
        first[name] = time.perf_counter() - begin
        print(f"{name}: made, and a first step, in {first[name]:.1f} s", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    order, rng = list(steps), random.Random(0)
    for round_number in range(3 + ROUNDS):
        rng.shuffle(order)
        for name in order:
            step = steps[name]
            begin = time.perf_counter()
            with torch.no_grad():
                step()
            if round_number >= 3:
                seconds[name].append(time.perf_counter() - begin)
    fused = seconds["torch AdamW (fused)"]
    found = {
        name: {
            "ms": round(statistics.median(taken) * 1e3, 2),
            "ratio": round(statistics.median(a / b for a, b in zip(taken, fused, strict=True)), 2),
            "first_step_seconds": round(first.get(name, 0.0), 2),
        }
        for name, taken in seconds.items()
    }
    (HERE / "alternatives.json").write_text(
        json.dumps({"machine": machine("cpu"), "n": ROUNDS, "found": found}, indent=1) + "\n"
    )
    for name, row in found.items():
        print(f"{name:40} {row['ms']:8.2f} ms  {row['ratio']:6.2f} × fused")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        build.build_with.cache_clear()
        main()

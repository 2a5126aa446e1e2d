"""Times optimizers in turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

WARM_UP = 3
"""Steps of each optimizer that are not counted."""


def take_turns(
    optimizers: Mapping[str, Optimizer], params: list[nn.Parameter], rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Seconds of `rounds` steps of each optimizer; each round times all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    order, rng = list(optimizers), np.random.default_rng(0)
    for _ in range(WARM_UP + rounds):
        rng.shuffle(order)
        for name in order:
            seconds[name].append(time_step(optimizers[name], params))
    return {name: np.array(taken[WARM_UP:]) for name, taken in seconds.items()}


def time_step(optimizer: Optimizer, params: Sequence[Tensor]) -> float:
    """Seconds of one step, including the device's work."""

    def wait() -> None:
        if params[0].is_cuda:
            torch.cuda.synchronize(params[0].device)

    wait()
    begin = time.perf_counter()
    with redirect_stdout(io.StringIO()):  # some packages print
        optimizer.step()
    wait()
    return time.perf_counter() - begin

"""Times the steps of full Ranger21, each component alone, torch's AdamW and other packages, side by side.

What an optimizer costs depends on the shapes of the parameters alone, so a model here is a list of shapes. All
optimizers step over the same parameters and gradients in turns (other packages, which change gradients, over copies),
in an order that changes from round to round, and each is compared with the reference's step of the same round: what
slows the machine down slows both.
"""

from __future__ import annotations

import importlib
import io
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from autoranger.components.core.component import registry
from autoranger.components.core.config import Config
from autoranger.components.core.errors import first_line, unknown
from autoranger.search.storage.sittings import processor
from autoranger.search.timing import take_turns, time_step

Shape = tuple[int, ...]
Build = Callable[[list[nn.Parameter]], Optimizer]

REFERENCE = "torch AdamW (fused)"
TOTAL_STEPS = 1_000_000
TOGETHER = 6
"""Most optimizers that take turns; the state of more would need too much memory."""


def mlp() -> Iterator[Shape]:
    """A perceptron 64-128-128-10: 26 thousand parameters."""
    for inputs, outputs in ((64, 128), (128, 128), (128, 10)):
        yield from ((outputs, inputs), (outputs,))


def transformer(width: int, layers: int) -> Iterator[Shape]:
    """Blocks of attention and a perceptron, and the normalization after them (Radford et al. 2019)."""
    for _ in range(layers):
        yield from ((width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,))
        yield from ((width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,))
    yield from ((width,), (width,))


def gpt(width: int = 384, layers: int = 6, vocabulary: int = 65, context: int = 256) -> Iterator[Shape]:
    """A small GPT for characters, as nanoGPT's: 10.8 million parameters in 76 tensors."""
    yield from ((vocabulary, width), (context, width))
    yield from transformer(width, layers)


def resnet50() -> Iterator[Shape]:
    """ResNet-50 (He et al. 2015): 25.6 million parameters in 161 tensors."""

    def conv(outputs: int, inputs: int, size: int) -> Iterator[Shape]:
        yield from ((outputs, inputs, size, size), (outputs,), (outputs,))

    yield from conv(64, 3, 7)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for outputs, before, size in ((width, inputs, 1), (width, width, 3), (4 * width, width, 1)):
                yield from conv(outputs, before, size)
            if block == 0:
                yield from conv(4 * width, inputs, 1)
            inputs = 4 * width
    yield from ((1000, 2048), (1000,))


def vit(width: int = 192, layers: int = 12) -> Iterator[Shape]:
    """ViT-Ti/16 (Dosovitskiy et al. 2020): 5.7 million parameters in 152 tensors."""
    yield from ((1, 1, width), (1, 197, width), (width, 3, 16, 16), (width,))
    yield from transformer(width, layers)
    yield from ((1000, width), (1000,))


MODELS: dict[str, Callable[[], Iterator[Shape]]] = {"mlp": mlp, "gpt": gpt, "resnet50": resnet50, "vit": vit}


@dataclass(frozen=True)
class Timing:
    """Step times of one optimizer.

    Args:
        name: of the optimizer.
        first: seconds of the first step, including compilation.
        median, low, high: seconds of a later step, and the quartiles.
        ratio: median ratio to the reference's step of the same round.
        state: numbers that it keeps per parameter.
    """

    name: str
    first: float
    median: float
    low: float
    high: float
    ratio: float
    state: float


@dataclass(frozen=True)
class Bench:
    """A measurement with what is needed to judge it.

    Args:
        model: its name.
        parameters, tensors: its size.
        rounds: timed steps of each optimizer.
        timings: of each optimizer.
        skipped: the reason, by name, for each optimizer that does not run here.
        machine: device, threads, versions and date.
    """

    model: str
    parameters: int
    tensors: int
    rounds: int
    timings: list[Timing]
    skipped: dict[str, str]
    machine: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def contestants(peers: bool) -> dict[str, Build]:
    """The optimizers: ours ("+ component": AdamW with one component), torch's AdamW, with `peers` other packages."""

    def torch_adamw(**how: Any) -> Build:
        return lambda params: AdamW(params, lr=1e-5, **how)

    def ours(config: Config, **how: Any) -> Build:
        return lambda params: config.build(params, TOTAL_STEPS, **how)

    full, plain = Config.preset("ranger21", lr=1e-5), Config(lr=1e-5)
    return {
        REFERENCE: torch_adamw(fused=True),
        "torch AdamW (foreach)": torch_adamw(foreach=True),
        "torch AdamW (loop)": torch_adamw(foreach=False),
        "ranger21": ours(full),
        "ranger21, not compiled": ours(full, compile=False),
        "adamw": ours(plain),
        **(PEERS if peers else {}),
        **{f"+ {name}": ours(Config(lr=1e-5, components={name: {}})) for name in registry},
    }


def authors(params: list[nn.Parameter]) -> Optimizer:
    """The package `ranger21`, with what is not in the paper switched off."""
    package = importlib.import_module("ranger21")
    with redirect_stdout(io.StringIO()):
        return package.Ranger21(  # type: ignore[no-any-return]
            params, lr=1e-4, num_epochs=1000, num_batches_per_epoch=1000, softplus=False, using_normgc=False
        )


def pytorch_optimizer(params: list[nn.Parameter]) -> Optimizer:
    """The Ranger21 of the package `pytorch-optimizer`."""
    package = importlib.import_module("pytorch_optimizer")
    return package.Ranger21(params, lr=1e-5, num_iterations=TOTAL_STEPS)  # type: ignore[no-any-return]


PEERS: dict[str, Build] = {
    "ranger21, its authors' package": authors,
    "ranger21, pytorch_optimizer": pytorch_optimizer,
}
"""Ranger21 of other packages. Each gets its own parameters, since they change gradients in place."""


def copies(params: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Copies of parameters and their gradients."""
    found = [nn.Parameter(p.detach().clone()) for p in params]
    for p, q in zip(params, found, strict=True):
        q.grad = None if p.grad is None else p.grad.clone()
    return found


def bench(
    model: str,
    *,
    device: str = "cpu",
    rounds: int = 30,
    peers: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Bench:
    """Times the steps of all contestants.

    Args:
        model: a name in `MODELS`.
        device: of the parameters.
        rounds: how many steps of each to time.
        peers: whether to time other packages; those that are not installed are skipped.
        progress: called with the number of optimizers that are done, and the number of all.

    Raises:
        ConfigError: on an unknown model.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter((torch.randn(s, generator=generator) * 0.02).to(device)) for s in MODELS[model]()]
    for p in params:
        p.grad = (torch.randn(p.shape, generator=generator) * 1e-3).to(device)
    chosen, skipped, timings, seen = contestants(peers), dict[str, str](), list[Timing](), set[str]()
    names = iter([name for name in chosen if name != REFERENCE])
    while group := list(islice(names, TOGETHER)):
        optimizers, first = dict[str, Optimizer](), dict[str, float]()
        for name in (REFERENCE, *group):
            try:
                optimizers[name] = chosen[name](params if name not in PEERS else copies(params))
                first[name] = time_step(optimizers[name], params)
            except Exception as error:
                optimizers.pop(name, None)
                skipped[name] = f"{type(error).__name__}: {first_line(error)}"
        found = take_turns(optimizers, params, rounds)
        timings += [summary(name, first[name], found, optimizers[name], params) for name in found if name not in seen]
        seen |= found.keys()
        progress(len(timings) + len(skipped), len(chosen))
    size = sum(p.numel() for p in params)
    return Bench(model, size, len(params), rounds, timings, skipped, machine(device))


def summary(
    name: str,
    first: float,
    seconds: Mapping[str, NDArray[np.float64]],
    optimizer: Optimizer,
    params: list[nn.Parameter],
) -> Timing:
    """The timing of one optimizer, from the seconds of all that took turns with it."""
    low, median, high = np.quantile(seconds[name], (0.25, 0.5, 0.75)).tolist()
    ratio = float(np.median(seconds[name] / seconds[REFERENCE])) if REFERENCE in seconds else float("nan")
    return Timing(name, first, median, low, high, ratio, state_numel(optimizer) / sum(p.numel() for p in params))


def state_numel(optimizer: Optimizer) -> int:
    """How many numbers an optimizer keeps, except counts of steps."""
    held = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.numel() for value in held if isinstance(value, Tensor) and value.dim() > 0)


def machine(device: str) -> dict[str, Any]:
    """Device, threads, versions and date of a measurement."""

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = ("autoranger", "torch", "numpy", "ranger21", "pytorch_optimizer")
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := installed(name))},
        "date": date.today().isoformat(),
    }

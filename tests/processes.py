"""What tests of distributed training run in each of several processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

Work = Callable[..., None]


def run(size: int, work: Work, *args: Any) -> None:
    """Runs `work(*args)` in that many processes that can talk to each other."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(begin, (size, folder, work, args), nprocs=size)  # type: ignore[no-untyped-call]


def begin(rank: int, size: int, folder: str, work: Work, args: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder, "store")), size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    try:
        work(*args)
    finally:
        dist.destroy_process_group()


SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (5, 7),
    "another": (5, 7),
    "single row": (1, 9),
    "single column": (6, 1),
    "vector": (7,),
    "same vector": (7,),
    "one number": (1,),
    "conv": (4, 3, 3, 3),
    "large": (33, 40),
}
"""Rows and vectors that do not divide evenly among processes, and some that leave a process without any."""


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def place(x: Tensor, mesh: DeviceMesh, placements: Sequence[Any] | None) -> Tensor:
    """A tensor spread over processes; itself where it is to be everywhere."""
    return x.clone() if placements is None else distribute_tensor(x, mesh, placements)


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


class Case:
    """Parameters with gradients that do not depend on them, spread as `how` says for each name."""

    def __init__(self, mesh: DeviceMesh | None, how: Callable[[Tensor], Any]) -> None:
        self.mesh, self.how = mesh, how
        self.params = {name: nn.Parameter(self.place(x)) for name, x in tensors(0).items()}

    def place(self, x: Tensor) -> Tensor:
        return x.clone() if self.mesh is None else place(x, self.mesh, self.how(x))

    def train(self, optimizer: torch.optim.Optimizer, first: int, steps: int) -> None:
        for step in range(first, first + steps):
            for (name, p), g in zip(self.params.items(), tensors(1 + step).values(), strict=True):
                # Large ones, so that clipping acts, and now and then none.
                p.grad = None if name == "another" and step % 5 == 3 else self.place(g * (1 + step % 3))
            optimizer.step()

    def results(self) -> dict[str, Tensor]:
        return {name: whole(p.detach()) for name, p in self.params.items()}

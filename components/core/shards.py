"""Parameters of which each process holds a part, as FSDP's and tensor parallelism's DTensors: what is where."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.rows import by_rows, from_rows, row_shape

Group = tuple[Any, int]
"""The processes along one dimension of a device mesh."""


@dataclass(frozen=True)
class Shards:
    """How a parameter is spread over processes. Here it is laid out as `[R, C]`, its local rows and columns.

    A tensor sharded along its first dimension has whole rows in each process, and only sums over the tensor cross
    processes. Sharded along another one, or as a vector, which is one row, its rows are cut, and so are their sums. The
    output units of a transposed convolution lie along the second dimension: there a local row is a piece of one, a
    kernel from one input to one output, and `pieces` says of which.

    Args:
        mesh, placements: of the DTensor.
        shape, stride: of the whole parameter.
        conv_groups: of the transposed convolution whose kernel it is; else 0.
    """

    mesh: Any
    placements: tuple[Any, ...]
    shape: torch.Size
    stride: tuple[int, ...]
    conv_groups: int

    @classmethod
    def of(cls, p: Tensor, conv_groups: int = 0) -> Shards | None:
        """How a parameter is spread; None for an ordinary tensor."""
        if not is_sharded(p):
            return None
        spread: Any = p
        return cls(spread.device_mesh, tuple(spread.placements), p.shape, tuple(p.stride()), conv_groups)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The processes among which the tensor is cut."""
        return tuple((self.mesh, i) for i, _ in self._cuts)

    @cached_property
    def row_groups(self) -> tuple[Group, ...]:
        """The processes among which rows are cut."""
        whole_along = 0 if len(self.shape) > 1 and not self.conv_groups else None
        return tuple((self.mesh, i) for i, dim in self._cuts if dim != whole_along)

    @property
    def are_rows_cut(self) -> bool:
        """Whether a local row is part of a longer one."""
        return bool(self.row_groups or self.conv_groups)

    @cached_property
    def _cuts(self) -> tuple[tuple[int, int], ...]:
        """Dimensions of the mesh, and of the tensor, which is cut along the one among the processes of the other."""
        return tuple(
            (i, placement.dim % max(1, len(self.shape)))
            for i, placement in enumerate(self.placements)
            if hasattr(placement, "dim") and self.mesh.size(i) > 1
        )

    @cached_property
    def rows(self) -> tuple[int, int]:
        """How many rows, and numbers in each, the whole parameter has."""
        return row_shape(self.shape, self.conv_groups)

    def row_shape(self, shape: torch.Size) -> tuple[int, int]:
        """`(R, C)` of the local part, which has this shape."""
        if self.conv_groups:
            return shape[0] * shape[1], math.prod(shape[2:])
        return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))

    @cached_property
    def pieces(self) -> Tensor | None:
        """The row that each local row is a piece of; None where they are rows of their own."""
        if not self.conv_groups:
            return None
        inputs, outputs = self._located(0), self._located(1)
        group = inputs // (self.shape[0] // self.conv_groups)
        return (group[:, None] * self.shape[1] + outputs).flatten().to(self.mesh.device_type)

    def _located(self, dim: int) -> Tensor:
        """Where the local part lies along a dimension of the tensor."""
        start, length = 0, self.shape[dim]
        for i, along in self._cuts:
            if along == dim:
                if type(self.placements[i]).__name__ != "Shard":
                    raise ConfigError("the kernel of a transposed convolution is sharded twice along one dimension.")
                chunk = -(-length // self.mesh.size(i))
                first = min(chunk * self.mesh.get_local_rank(i), length)
                start, length = start + first, min(chunk, length - first)
        return torch.arange(start, start + length, device="cpu")

    def wrap(self, part: Tensor) -> Tensor:
        """A local part, as the tensor that it is part of."""
        from torch.distributed.tensor import DTensor

        return DTensor.from_local(
            part, self.mesh, self.placements, run_check=False, shape=self.shape, stride=self.stride
        )

    def on_whole(self, operation: Callable[..., Any], x: Tensor, *more: Sequence[Tensor]) -> Any:
        """The local part `[1, B, R, C]` of what an operation makes of whole tensors, which every process gathers.

        `more` is what an operation `with_memory` is given besides, whose state of another shape all processes have.
        """
        if not self.groups and not self.conv_groups:
            return operation(x, *more)
        if not more:
            return self._part_of(operation(self._whole(x)), x.shape)
        alike, *others = more
        made = operation(self._whole(x), [*map(self._whole, alike)], *others)
        parts = [self._part_of(whole, x.shape) for whole in made[: 1 + len(alike)]]
        return [*parts, *made[1 + len(alike) :]]

    def _whole(self, x: Tensor) -> Tensor:
        """All of tensors of which `[1, B, R, C]` is here."""
        own = [len(self._located(dim)) for dim in range(len(self.shape))]
        every = [self.wrap(part.reshape(own)).full_tensor() for part in x[0]]  # type: ignore[attr-defined]
        return torch.stack([by_rows(whole, self.conv_groups).reshape(self.rows) for whole in every])[None]

    def _part_of(self, x: Tensor, shape: torch.Size) -> Tensor:
        """What is here of whole tensors, in the shape `[1, B, R, C]` that it has here."""
        here = [self.part(from_rows(whole, self.shape, self.conv_groups)).reshape(shape[2:]) for whole in x[0]]
        return torch.stack(here)[None]

    def part(self, x: Tensor) -> Tensor:
        """What this process holds of a tensor of the whole parameter's shape, however that is spread."""
        if not is_sharded(x):
            from torch.distributed.tensor import DTensor, Replicate

            whole = [Replicate()] * self.mesh.ndim
            x = DTensor.from_local(x.reshape(self.shape), self.mesh, whole, run_check=False)
        return local(x.redistribute(self.mesh, self.placements))  # type: ignore[attr-defined]


def is_sharded(x: object) -> bool:
    """Whether this is a DTensor. Where nobody has imported them, there are none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def local(x: Tensor) -> Tensor:
    """What this process holds of a tensor: all of an ordinary one. To be called without gradients."""
    if not is_sharded(x):
        return x
    part: Any = x.to_local()  # type: ignore[attr-defined]
    return part.wait() if hasattr(part, "wait") else part  # type: ignore[no-any-return]


def local_gradient(p: Tensor) -> Tensor | None:
    """What belongs to the local part of a parameter of its gradient."""
    grad: Any = p.grad
    if not is_sharded(grad):
        return grad  # type: ignore[no-any-return]
    if not is_sharded(p):
        return grad.full_tensor()  # type: ignore[no-any-return]
    if grad.placements != p.placements:  # type: ignore[attr-defined]
        grad = grad.redistribute(p.device_mesh, p.placements)  # type: ignore[attr-defined]
    return local(grad)


def add_up(parts: Sequence[Tensor], groups: Sequence[Sequence[Group]]) -> list[Tensor]:
    """Each part summed over the processes of its groups, in one collective for each group."""
    from torch.distributed import all_reduce

    parts = list(parts)
    for mesh, dim in dict.fromkeys(group for own in groups for group in own):
        chosen = [i for i, own in enumerate(groups) if (mesh, dim) in own]
        # Parameters may have been offloaded to where their processes cannot talk to each other.
        flat = torch.cat([parts[i].flatten() for i in chosen]).to(mesh.device_type)
        all_reduce(flat, group=mesh.get_group(dim))
        for i, total in zip(chosen, torch.split(flat, [parts[i].numel() for i in chosen]), strict=True):
            parts[i] = total.view(parts[i].shape).to(parts[i].device)
    return parts

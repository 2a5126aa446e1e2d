"""Stochastic rounding: how state that is kept in bfloat16 loses nothing on average.

bfloat16 is a float32 without its last 16 bits. Rounded to the nearest one, a moment stalls whose change in a step is
less than a part in 512; rounded up with a probability that is the part which is cut off, it follows what it would be
(Gupta et al. 2015, arXiv 1502.02551). The bits that decide are a hash of what is rounded where and when, so that a
training that goes on from a checkpoint is the same as one that was not interrupted. `runtime.h` has the same in C++.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import torch
from torch import Tensor


def stochastic(x: Tensor, count: Tensor, rows: Tensor, salt: int) -> Tensor:
    """Numbers in float32, rounded to bfloat16 up or down by chance, and to themselves on average.

    Args:
        x: numbers `[K, B, R, C]`; those that bfloat16 has, infinities and NaN stay what they are.
        count: updates of the tensors, `[K or 1, B or 1, 1, 1]`.
        rows: the numbers of the rows, `[1, 1, R, 1]`.
        salt: see `salt_of`.
    """
    # In int32, whose products wrap around; `&` makes a shift one without the sign.
    seed = scrambled(count.to(torch.int32) ^ salt)
    at = rows.to(torch.int32) * x.shape[3] + torch.arange(x.shape[3], dtype=torch.int32, device=x.device)
    noise = scrambled(at ^ seed) & 0xFFFF
    bits = x.contiguous().view(torch.int32)
    return torch.where(x.isnan(), x, ((bits + noise) & ~0xFFFF).view(torch.float32)).to(torch.bfloat16)


def scrambled(x: Tensor) -> Tensor:
    """A hash of each number of 32 bits."""
    x = (x ^ ((x >> 15) & 0x1FFFF)) * 0x2C1B3C6D
    x = (x ^ ((x >> 12) & 0xFFFFF)) * 0x297A2D39
    return x ^ ((x >> 15) & 0x1FFFF)


@lru_cache(maxsize=256)
def salt_of(name: str) -> int:
    """What makes the draws of one state differ from those of another, by its name."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF

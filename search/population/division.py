"""The division of examples into those that train and those that validate, another one for each seed."""

from __future__ import annotations

import torch
from torch import Tensor

from autoranger.components.core.private import tree_leaves
from autoranger.search.vectorization import Tree

OFFSET = 1 << 31
"""Added to the seed, whose random numbers the order of the batches must not repeat. Torch reads 32 bits of a seed."""


def division(targets: Tree, valid: int, seed: int) -> tuple[Tensor, Tensor]:
    """The indices of a seed's training examples, and of its `valid` validation examples.

    Each example validates with the same probability. Where there is one number for each, all parts of its distribution,
    and so all classes, have their share: examples are sorted by it, cut into as many strata as the smaller part has
    examples, and one of each stratum is drawn.
    """
    leaves = tree_leaves(targets)
    count, generator = len(leaves[0]), torch.Generator().manual_seed((seed + OFFSET) % (1 << 32))
    order = torch.randperm(count, generator=generator)
    if len(leaves) == 1 and leaves[0].dim() == 1 and not leaves[0].is_complex():
        order = order[leaves[0].cpu()[order].argsort(stable=True)]
    fewer = min(valid, count - valid)
    # Strata differ in size by one. Where they begin is random, so that no example is in a smaller one more often.
    order = order.roll(int(torch.randint(count, (), generator=generator)))
    stratum = torch.arange(count) * fewer // count
    shuffled = (stratum + torch.rand(count, generator=generator, dtype=torch.float64)).argsort()
    first = torch.ones(count, dtype=torch.bool)
    first[1:] = stratum[1:] != stratum[:-1]
    drawn, rest = order[shuffled[first]], order[shuffled[~first]]
    return (rest, drawn) if valid == fewer else (drawn, rest)

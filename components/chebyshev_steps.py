"""Chebyshev steps: Agarwal, Goel and Zhang 2021, arXiv 2103.01338."""

from __future__ import annotations

import math

import torch

from autoranger.components.core.component import Component, Hyper, Signals, Stage

MOST_LEVELS = 10


class ChebyshevSteps(Component):
    """Multiply the learning rate by Chebyshev's step sizes, in the fractal order that keeps them stable.

    Training is cut into n = 2^levels equal parts. In part i (from 0) the rate factor is multiplied by
    1/[(1 + q)/2 − (1 − q)/2·cos(π·(σ_i + ½)/n)], q = 1/spread: between 1 and `spread`. σ is the fractal permutation:
    [0] doubled to n numbers by following each number s with n − 1 − s. Ranger21's code has one part for each epoch, and
    spread 10; this knows no epochs, and its permutation needs a power of two. Acts on top of the other schedules.
    """

    stage = Stage.RATE
    source = "arXiv 2103.01338"
    levels = Hyper(3, low=1, high=6, minimum=1, maximum=MOST_LEVELS)
    spread = Hyper(10.0, low=2.0, high=100.0, log=True, minimum=1.0)
    needs_total_steps = True

    def forward(self, x: Signals) -> Signals:
        parts = 2**self.levels
        part = torch.clamp(((x.step - 1) * parts / x.total).floor(), max=parts - 1)
        # The bits of i, the highest first: bit l doubles a permutation of 2^l numbers, and turns it over where it is 1.
        # So bit l of σ_i, the lowest first, is 1 where an odd number of the bits of i from l on are.
        level = torch.arange(MOST_LEVELS, dtype=x.lr.dtype, device=x.lr.device)
        bits = torch.where(level < self.levels, (part / 2 ** (self.levels - 1 - level)).floor() % 2, 0.0)
        odd = bits.flip(-1).cumsum(-1).flip(-1) % 2
        place = (odd * 2**level).sum(-1, keepdim=True)
        smallest = 1 / self.spread
        cosine = torch.cos(math.pi * (place + 0.5) / parts)
        return x._replace(rate=x.rate / ((1 + smallest) / 2 - (1 - smallest) / 2 * cosine))

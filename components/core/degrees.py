"""Measuring how an optimizer's update grows with gradients and with weights, on a small matrix."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import torch

from autoranger.components.core.config import Config
from autoranger.components.core.laws import Degrees
from autoranger.components.core.step import Step

FIRST, STEPS = 8, 6
"""Steps that are left out, which rectification and the like do in another way, and steps that count."""

SMALL = 1e-4
"""Of gradients: below what components clip, and above what ε hides."""


def degrees_of(config: Config) -> Degrees:
    """The degrees of a config's update, without its weight decay; to a sixth, which covers what is known."""
    return measured(replace(config, weight_decay=0.0, eps=min(config.eps, 1e-12), lr=1e-3, kinds={}, proxy={}))


@lru_cache(maxsize=64)
def measured(plain: Config) -> Degrees:
    """The degrees of a config of some rate; made once for all rates."""
    usual = moved(plain, 1.0, 1.0)
    found = (math.log2(moved(plain, *factors) / usual) for factors in ((2.0, 1.0), (1.0, 2.0)))
    return Degrees(*(round(6 * degree) / 6 for degree in found))


@torch.no_grad()
def moved(config: Config, gradient: float, weight: float) -> float:
    """How far a matrix moves in a few steps, with gradients and weights times these factors."""
    generator = torch.Generator().manual_seed(0)
    step = Step([config], 10**6, dtype=torch.float64, device=torch.device("cpu"))
    theta = weight * torch.randn(1, 1, 8, 16, generator=generator, dtype=torch.float64)
    step.add(theta, matrix=True)
    for t in range(FIRST + STEPS):
        if t == FIRST:
            start = theta.clone()
        grad = SMALL * gradient * torch.randn(1, 1, 8, 16, generator=generator, dtype=torch.float64)
        step([theta], [grad])
    return float((theta - start).norm())

"""Programs that have been recorded already: many small optimizers of the same components share one."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

import torch
from torch import nn

from autoranger.components.core.chain import Link
from autoranger.components.core.component import Component
from autoranger.components.core.step import Step
from autoranger.components.kernel.recording.program import Program
from autoranger.components.kernel.recording.record import record

PROGRAMS: dict[Hashable, Program] = {}

MOST = 64
"""How many are kept, those that were recorded last."""

OF_MODULES = frozenset(vars(nn.Module()))
"""The attributes that every module has."""


def program_of(step: Step, kind: int, dtype: torch.dtype, rates: bool = False) -> Program:
    """The program of a step as `record` makes it, recorded once for all steps that compute the same."""
    components = tuple(recipe(tuple(chain)) for chain in step.chains)
    if None in components:
        return record(step, kind, dtype, rates)
    key = components, step.dtype, step.lr.device, kind, dtype, rates
    program = PROGRAMS.get(key)
    if program is None:
        program = record(step, kind, dtype, rates)
        for old in [*PROGRAMS][: max(0, len(PROGRAMS) - MOST + 1)]:  # of a copy: other threads may do the same
            PROGRAMS.pop(old, None)
        PROGRAMS[key] = program
    return program


@lru_cache(maxsize=16)
def recipe(chain: tuple[Link, ...]) -> Hashable | None:
    """What a program depends on: the components' classes and what they keep in Python; numbers are its inputs.

    None where nobody can tell whether two are the same.
    """
    kept = [in_python(link.component) for link in chain]
    if None in kept:
        return None
    return tuple((type(link.component), link.gated, own) for link, own in zip(chain, kept, strict=True))


def in_python(component: Component) -> tuple[tuple[str, object], ...] | None:
    """The attributes of a component that are neither tensors nor modules; None where any is more than a plain value."""
    own = {name: value for name, value in vars(component).items() if name not in OF_MODULES}
    if all(isinstance(value, bool | int | float | str | None) for value in own.values()):
        return tuple(sorted(own.items()))
    return None

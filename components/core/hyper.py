"""A hyperparameter of a component: which values are valid, and which a search explores."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import overload

from torch import Tensor, nn

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.private import buffers

Setting = float | int | str
"""The value of a hyperparameter."""

Settings = Mapping[str, Setting]
"""A component's hyperparameters, by name."""


def plain_number(value: object) -> int | float | None:
    """A finite real number (NumPy's, too) as Python's own; None for anything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = int(value) if isinstance(value, Integral) else float(value)
    return number if abs(number) <= sys.float_info.max else None


@dataclass(frozen=True)
class Hyper:
    """A hyperparameter of a component: default, the range that a search explores, the values that are valid.

    Args:
        default: a number, or one of `choices`.
        low, high: what a search explores; both None means that it keeps the default.
        log: whether the search samples it on a logarithmic scale.
        minimum, maximum: bounds of what is valid, `minimum` itself excluded where `positive`.
        choices: the valid names of a categorical hyperparameter; its buffer holds the index.

    Read on a component *instance* it is that instance's buffer of shape `[K, 1, 1, 1]`.

    >>> clip = Hyper(0.01, low=1e-3, high=0.1, log=True, positive=True)
    >>> clip.check(0, "clip")
    Traceback (most recent call last):
    autoranger.components.core.errors.ConfigError: clip is 0, but must be a number above 0.
    """

    default: Setting
    low: float | None = None
    high: float | None = None
    log: bool = False
    minimum: float = 0.0
    maximum: float = math.inf
    positive: bool = False
    choices: tuple[str, ...] = ()
    name: str = ""

    def __set_name__(self, owner: type, name: str) -> None:
        object.__setattr__(self, "name", name)

    @overload
    def __get__(self, instance: None, owner: type) -> Hyper: ...
    @overload
    def __get__(self, instance: nn.Module, owner: type) -> Tensor: ...
    def __get__(self, instance: nn.Module | None, owner: type) -> Hyper | Tensor:
        if instance is None:
            return self
        buffer = buffers(instance).get(self.name)
        if buffer is None:
            raise AttributeError(self.name)
        return buffer

    @property
    def integer(self) -> bool:
        """Whether only whole numbers are valid: true where the default is one."""
        return isinstance(self.default, int)

    @property
    def domain(self) -> str:
        """The valid values in words."""
        if self.choices:
            return " or ".join(f"'{choice}'" for choice in self.choices)
        kind = "a whole number" if self.integer else "a number"
        lower = f"{'above' if self.positive else 'from'} {self.minimum:g}"
        return f"{kind} {lower}" + (f" to {self.maximum:g}" if math.isfinite(self.maximum) else "")

    def check(self, value: object, where: str) -> Setting:
        """Returns `value` as a plain Python value of the default's type; ConfigError where it is not valid."""
        if self.choices:
            if isinstance(value, str) and value in self.choices:
                return value
        elif (number := plain_number(value)) is not None:
            above = number > self.minimum if self.positive else number >= self.minimum
            if above and number <= self.maximum and (not self.integer or number == int(number)):
                return int(number) if self.integer else float(number)
        raise ConfigError(f"{where} is {value!r}, but must be {self.domain}.")

    def encode(self, value: Setting) -> float:
        """The number that the buffer holds."""
        return float(self.choices.index(value)) if isinstance(value, str) else float(value)

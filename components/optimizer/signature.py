"""The stub of `Ranger21`: its signature with every component as an argument, for editors and type checkers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from autoranger.components.core.component import Component, Hyper
from autoranger.components.optimizer.ranger21 import Ranger21
from autoranger.components.presets import RANGER21

HEAD = """# Made by `make pages` from the components: what editors and type checkers read.
# Components that are not here, as those of other packages, are arguments, too.

from collections.abc import Mapping
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from autoranger.components.core.config import Compile
from autoranger.components.optimizer.optimizer import ComposedOptimizer
"""


def stub(components: Iterable[type[Component]]) -> str:
    """The file."""
    known = sorted(components, key=lambda cls: cls.id not in RANGER21)
    return "\n".join([HEAD, *map(settings, known), optimizer(known)])


def settings(cls: type[Component]) -> str:
    """The hyperparameters of a component, as the type of a dictionary."""
    fields = "".join(f"    {name}: {type_of(hyper)}\n" for name, hyper in cls.hypers.items())
    text = f'class _{cls.__name__}(TypedDict, total=False):\n    """{cls.summary()}"""\n'
    return f"{text}\n{fields}" if fields else text


def optimizer(components: Iterable[type[Component]]) -> str:
    """The class: its own arguments, as they are, and the components'."""
    lines = ["self"]
    for name, argument in list(inspect.signature(Ranger21.__init__).parameters.items())[1:]:
        if argument.kind is argument.VAR_KEYWORD:
            lines += [f"{cls.id}: bool | _{cls.__name__} = {cls.id in RANGER21}" for cls in components]
            lines.append(f"**{name}: {argument.annotation}")
            continue
        if argument.kind is argument.KEYWORD_ONLY and "*" not in lines:
            lines.append("*")
        default = "" if argument.default is argument.empty else f" = {quoted(argument.default)}"
        lines.append(f"{name}: {argument.annotation}{default}")
    arguments = "".join(f"        {line},\n" for line in lines)
    return f"class Ranger21(ComposedOptimizer):\n    def __init__(\n{arguments}    ) -> None: ...\n"


def type_of(hyper: Hyper) -> str:
    """The type of a hyperparameter's values."""
    if hyper.choices:
        return f"Literal[{', '.join(map(quoted, hyper.choices))}]"
    return "int" if hyper.integer else "float"


def quoted(value: object) -> str:
    """A value as code, with the quotes of this project."""
    return repr(value).replace("'", '"')

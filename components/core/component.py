"""The contract of a component: where it acts (`Stage`), what can be tuned (`Hyper`), what it computes (`forward`).

A component is one transformation of `Signals`, the record of what one step knows about one stack of parameters.
Subclassing `Component` registers it; the optimizer, the configs, the search space, the command line and the contract
tests all read the registry, so a new component is one new file.
"""

from __future__ import annotations

import enum
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from numbers import Integral, Real
from typing import ClassVar, NamedTuple, overload

import torch
from torch import Tensor, nn

from autoranger.components.core.errors import ConfigError, unknown
from autoranger.components.core.private import buffers
from autoranger.components.core.registry import Registry, same_definition
from autoranger.components.order import position

Value = float | int | str
Settings = Mapping[str, Value]


class Stage(enum.IntEnum):
    """When a component acts within a step. Stages run in this order; AdamW's own part of a stage runs first.

    >>> Stage.GRADIENT < Stage.UPDATE
    True
    """

    RATE = 0  # scalars only: the factor on the learning rate, the momentum
    GRADIENT = 1  # the gradient, before anything has seen it
    MOMENTUM = 2  # the first and second moment
    DENOMINATOR = 3  # what the first moment is divided by
    DIRECTION = 4  # the preconditioned step direction
    DECAY = 5  # the factor on the weight decay
    UPDATE = 6  # direction and decay together
    WEIGHTS = 7  # the parameters after the update


class Role(enum.Enum):
    """A part of the step that only one component can play. AdamW plays the first six, until a component replaces it.

    >>> from autoranger.components.madgrad import Madgrad
    >>> Role.DIRECTION in Madgrad.replaces
    True
    """

    FIRST_MOMENT = "first moment"
    SECOND_MOMENT = "second moment"
    DENOMINATOR = "denominator"
    DIRECTION = "direction"
    UPDATE = "update"
    WEIGHTS = "weights"
    DECAY = "decay"
    TRUST_RATIO = "trust ratio"
    WARMUP = "warmup"
    ANNEALING = "annealing"


class Signals(NamedTuple):
    """What one step knows about one stack of B equal-shaped tensors of K candidates.

    Large signals have the shape `[K, B, R, C]` (see `rows`), scalars any shape that broadcasts to it. A component
    returns a copy with the signals that it changes; in the rate stage only the scalars are there.

    >>> def forward(self, x: Signals) -> Signals:
    ...     return x._replace(grad=x.grad.sign())
    """

    theta: Tensor  # parameters
    grad: Tensor  # gradient
    mean: Tensor  # first moment m, before bias correction
    variance: Tensor  # second moment v, before bias correction
    denominator: Tensor  # √v̂ + ε
    direction: Tensor  # m̂ / denominator
    decay: Tensor  # factor on the weight decay, from 1
    update: Tensor  # direction + λ · decay · θ
    rate: Tensor  # factor on the learning rate, from 1
    lr: Tensor
    beta1: Tensor
    beta2: Tensor
    eps: Tensor
    weight_decay: Tensor
    step: Tensor  # t: steps of the optimizer, from 1
    updates: Tensor  # updates of this tensor, from 1: lags behind `step` where a gradient was missing
    total: Tensor  # T: planned steps
    state: Mapping[str, Tensor]  # the current component's own state; returned changed entries are stored
    collected: Sequence[Tensor]  # this component's `collect`, summed over all tensors: [K, 1, 1, 1] each
    matrix: bool  # whether these tensors have more than one dimension, and more than one number in each row

    @property
    def mean_hat(self) -> Tensor:
        """m̂ = m / (1 − β1^updates), the first moment corrected for bias."""
        return self.mean / (1 - self.beta1**self.updates)

    @property
    def variance_hat(self) -> Tensor:
        """v̂ = v / (1 − β2^updates), the second moment corrected for bias."""
        return self.variance / (1 - self.beta2**self.updates)


SCALARS = ("rate", "decay", "lr", "beta1", "beta2", "eps", "weight_decay", "total", "step")
"""The signals that are the same for all tensors of a parameter group; the rate stage may change them."""


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

    default: Value
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

    def check(self, value: object, where: str) -> Value:
        """Returns `value` as a plain Python value of the default's type; ConfigError where it is not valid."""
        if self.choices:
            if isinstance(value, str) and value in self.choices:
                return value
        elif (number := plain_number(value)) is not None:
            above = number > self.minimum if self.positive else number >= self.minimum
            if above and number <= self.maximum and (not self.integer or number == int(number)):
                return int(number) if self.integer else float(number)
        raise ConfigError(f"{where} is {value!r}, but must be {self.domain}.")

    def encode(self, value: Value) -> float:
        """The number that the buffer holds."""
        return float(self.choices.index(value)) if isinstance(value, str) else float(value)


registry: Registry[type[Component]] = Registry()
"""Every component class by id, in the order in which they act; those of other packages once somebody asks for them."""


class Component(nn.Module):
    """One switchable, tunable part of an optimizer, for K candidates at once.

    A subclass is registered under its name in snake case and declares, as class attributes,
        stage: when it acts;
        source: the paper that it is from;
        one `Hyper` per hyperparameter;
        state: for each state tensor, by name, the function that makes it from the parameters: `torch.zeros_like`, or
            `torch.clone` for a copy of them (a component with one begins anew where weights are loaded into the model);
        replaces: the roles that it plays (a `Role`, or a member of an enum of your own). Two components that replace
            the same one exclude each other, and AdamW's part of that role is not computed where the component is on;
        bypasses: the stages whose result it does not read. It excludes the components of these stages;
        needs: the roles whose result it reads. AdamW computes them even where another component bypasses their stage;
        acts_before: the id of the component of the same stage that it acts before. By default it acts after all that
            are listed in `components.order`;
        needs_total_steps: whether it reads `Signals.total`;
    and `forward`. The class docstring's first line is what `autoranger components` shows.

    >>> from autoranger import Component, Config, Hyper, Signals, Stage
    >>> class SignOfTheGradient(Component):
    ...     "Keep only the sign of the gradient, times `scale`."
    ...
    ...     stage = Stage.GRADIENT
    ...     source = "arXiv 1802.04434"
    ...     scale = Hyper(1.0, low=0.1, high=10.0, log=True)
    ...
    ...     def forward(self, x: Signals) -> Signals:
    ...         return x._replace(grad=self.scale * x.grad.sign())
    >>> Config(components={"sign_of_the_gradient": True}).components
    {'sign_of_the_gradient': {'scale': 1.0}}

    Args:
        settings: for each of the K candidates its hyperparameters, or None where the component is off.
        dtype, device: of the buffers.
    """

    id: ClassVar[str] = ""
    stage: ClassVar[Stage]
    source: ClassVar[str] = ""
    hypers: ClassVar[dict[str, Hyper]] = {}
    state: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {}
    replaces: ClassVar[frozenset[enum.Enum]] = frozenset()
    bypasses: ClassVar[frozenset[Stage]] = frozenset()
    needs: ClassVar[frozenset[Role]] = frozenset()
    acts_before: ClassVar[str] = ""
    needs_total_steps: ClassVar[bool] = False

    switch: Tensor
    collective: bool = False
    """Whether `forward` needs a sum over all tensors of the model, which splits the step into two sweeps."""

    def __init_subclass__(cls, register: bool = True) -> None:
        super().__init_subclass__()
        cls.id = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
        own = {name: hyper for name, hyper in vars(cls).items() if isinstance(hyper, Hyper)}
        cls.hypers = cls.hypers | own
        for name, kind in (("replaces", enum.Enum), ("bypasses", Stage), ("needs", Role)):
            if wrong := [member for member in getattr(cls, name) if not isinstance(member, kind)]:
                members = ", ".join(str(member) for member in (Role if kind is enum.Enum else kind))
                raise ConfigError(f"{cls.id}.{name} holds {wrong[0]!r}, but must hold members such as {members}.")
        if register:
            if cls.id in registry and not same_definition(cls, registry[cls.id]):
                raise ConfigError(f"a component '{cls.id}' exists already; give the new class another name.")
            registry[cls.id] = cls
            ordered = sorted(registry.values(), key=lambda c: (c.stage, position(c.id, c.acts_before), c.id))
            registry.clear()
            registry.update((component.id, component) for component in ordered)

    def __init__(self, settings: Sequence[Settings | None], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        shape = (len(settings), 1, 1, 1)
        on = [chosen is not None for chosen in settings]
        self.register_buffer("switch", torch.tensor(on, device=device).view(shape))
        for name, hyper in self.hypers.items():
            values = [hyper.encode((chosen or {}).get(name, hyper.default)) for chosen in settings]
            self.register_buffer(name, torch.tensor(values, dtype=dtype, device=device).view(shape))

    def collect(self, x: Signals) -> Sequence[Tensor]:
        """What `forward` finds in `Signals.collected`, of one stack: `[K, B, 1, 1]` each. Called where `collective`."""
        raise NotImplementedError

    def due(self, x: Signals) -> Tensor | None:
        """Whether the component acts in this step, `[K, B, 1, 1]`; None means always. Else nothing changes."""
        return None

    def forward(self, x: Signals) -> Signals:
        """The signals after this component, as if it were on for every candidate (the step does the switching)."""
        raise NotImplementedError

    @classmethod
    def complete(cls, given: Settings) -> dict[str, Value]:
        """All hyperparameters, `given` ones checked and the rest at their defaults; ConfigError on a wrong one."""
        for name in given:
            if name not in cls.hypers:
                raise unknown(f"hyperparameter of {cls.id}", name, cls.hypers)
        return {
            name: hyper.check(given.get(name, hyper.default), f"{cls.id}.{name}") for name, hyper in cls.hypers.items()
        }

    @classmethod
    def named(cls, name: str, others: Iterable[str] = ()) -> type[Component]:
        """The class of this id; ConfigError with the nearest of the known ids, and of `others`, where there is none."""
        try:
            return registry[name]
        except KeyError:
            raise unknown("component", name, [*registry, *others]) from None

    @classmethod
    def excludes(cls, other: type[Component]) -> str:
        """Why this component and `other` cannot both be on; empty where they can."""
        if cls is other:
            return ""
        if both := cls.replaces & other.replaces:
            return f"both set the {' and the '.join(sorted(str(role.value) for role in both))}"
        for one, another in ((cls, other), (other, cls)):
            if another.stage in one.bypasses:
                return f"{one.id} leaves {another.id} without effect"
        return ""

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]


def conflicts(ids: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs among these components that exclude each other."""
    return [(a, b) for a, b in combinations(ids, 2) if Component.named(a).excludes(Component.named(b))]

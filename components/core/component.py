"""The contract of a component: where it acts (`Stage`), what can be tuned (`Hyper`), what it computes (`forward`).

A component is one transformation of `Signals`, the record of what one step knows about one stack of parameters.
Subclassing `Component` registers it; the optimizer, the configs, the search space, the command line and the contract
tests all read the registry, so a new component is one new file.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn

from autoranger.components.core.errors import ConfigError, unknown
from autoranger.components.core.hyper import Hyper, Setting, Settings
from autoranger.components.core.kinds import check_kind
from autoranger.components.core.registry import Registry, same_definition
from autoranger.components.core.signals import Role, Signals, Stage
from autoranger.components.order import Position, just_before, position

__all__ = ["Component", "Hyper", "Role", "Settings", "Signals", "Stage", "conflicts", "registry"]

registry: Registry[type[Component]] = Registry()
"""Every component class by id, in the order in which they act; those of other packages once somebody asks for them."""


class Component(nn.Module):
    """One switchable, tunable part of an optimizer, for K candidates at once.

    A subclass is registered under its name in snake case, and declares the attributes below, one `Hyper` for each
    hyperparameter, and `forward`. The class docstring's first line is what `autoranger components` shows. An instance
    may serve several optimizers of the same config, so it keeps nothing of its own between steps: what is to be kept
    is `state`.

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

    Attributes:
        stage: when it acts.
        source: the paper that it is from.
        state: for each state tensor, by name, the function that makes it from the parameters: `torch.zeros_like`, or
            `torch.clone` for a copy of them (a component with one begins anew where weights are loaded into the model).
        replaces: the roles that it plays (a `Role`, or a member of an enum of your own). Two components that replace
            the same one exclude each other, and AdamW's part of that role is not computed where the component is on.
            One that plays `Role.EVALUATION` defines `evaluated`.
        bypasses: the stages whose result it does not read. It excludes the components of these stages.
        needs: the roles whose result it reads. AdamW computes them even where another component bypasses their stage.
        acts_before: the id of the component of the same stage that it acts before. By default it acts after all that
            are listed in `components.order`.
        needs_total_steps: whether it reads `Signals.total`.
        decay_unit: the weight decay that does about what 1 does without the component, so that a search knows where to
            look for one; 0 if there is no weight decay where it is on.
        kinds: the kinds of parameters that it is for, of hidden, embedding, head and vector (see `core.kinds`). It is
            off for the others. If empty it is for all.

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
    decay_unit: ClassVar[float] = 1.0
    kinds: ClassVar[frozenset[str]] = frozenset()
    position: ClassVar[Position]

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
        for meant in cls.kinds:
            check_kind(meant)
        cls.position = just_before(cls._successor().position) if cls.acts_before else position(cls.id)
        if register:
            if cls.id in registry and not same_definition(cls, registry[cls.id]):
                raise ConfigError(f"a component '{cls.id}' exists already; give the new class another name.")
            registry[cls.id] = cls
            ordered = sorted(registry.values(), key=lambda c: (c.stage, c.position, c.id))
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

    def evaluated(self, theta: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """The weights to evaluate with, of those that are trained. Called where it plays `Role.EVALUATION`."""
        raise NotImplementedError

    def forward(self, x: Signals) -> Signals:
        """The signals after this component, as if it were on for every candidate (the step does the switching)."""
        raise NotImplementedError

    @classmethod
    def _successor(cls) -> type[Component]:
        """The component that this one acts before."""
        peers = {name: other for name, other in registry.items() if other.stage is cls.stage}
        if cls.acts_before not in peers:
            kind = f"component of the {cls.stage.name.lower()} stage for {cls.id} to act before:"
            raise unknown(kind, cls.acts_before, peers)
        return peers[cls.acts_before]

    @classmethod
    def complete(cls, given: Settings) -> dict[str, Setting]:
        """All hyperparameters, `given` ones checked and the rest at their defaults; ConfigError on a wrong one."""
        for name in given:
            if name not in cls.hypers:
                raise unknown("hyperparameter", name, cls.hypers, f"of {cls.id}")
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
            if one.stage > another.stage and (missed := (another.needs & one.replaces) - another.replaces):
                return f"{another.id} needs the {next(iter(missed)).value}, which {one.id} does without"
        return ""

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]


def conflicts(ids: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs among these components that exclude each other."""
    return [(a, b) for a, b in combinations(ids, 2) if Component.named(a).excludes(Component.named(b))]

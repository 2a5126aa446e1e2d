"""The weights to evaluate with in the place of those that are trained, where a component tells these apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from autoranger.components.core.component import registry
from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.components.core.signals import Role
from autoranger.components.optimizer.groups import Group
from autoranger.components.optimizer.stacked import State
from autoranger.components.optimizer.stacking import gather, scatter

if TYPE_CHECKING:
    from autoranger.components.optimizer.layout import ParameterLayout

TRAINED = "trained"
"""Where in a parameter's `state` the weights that are trained are, while others are in their place."""

MODE = "evaluating"
"""What says in `param_groups` that the parameters hold the weights to evaluate with."""


def tells_apart(config: Config) -> bool:
    """Whether a config has weights to evaluate with that are not those that are trained."""
    every = {name for c in (config, *map(config.of, config.kinds)) for name in c.components}
    return any(Role.EVALUATION in registry[name].replaces for name in every)


def is_evaluating(groups: Sequence[Group]) -> bool:
    """Whether parameters hold the weights to evaluate with."""
    return any(group.get(MODE) for group in groups)


def require_training(groups: Sequence[Group]) -> None:
    """ConfigError where parameters hold the weights to evaluate with, of which nobody may take a step."""
    if is_evaluating(groups):
        raise ConfigError(
            "the parameters hold the weights to evaluate with; call optimizer.train() before you go on training, or "
            "evaluate inside of `with optimizer.evaluation():`."
        )


class Swap:
    """The weights to evaluate with in the place of those that are trained, which go to the optimizer's `state`.

    Args:
        bound: how the parameters are laid out.
        state: of the optimizer.
    """

    def __init__(self, bound: ParameterLayout, state: State) -> None:
        self.bound, here = bound, bound.here()
        bound.begin_anew(here)
        self._before = self._look()
        places = iter(here)
        parts = [[next(places) for _ in stacked.members] for stacked in bound.stacks]
        thetas = [gather(own, s.conv_groups, s.stack.shards) for s, own in zip(bound.stacks, parts, strict=True)]
        for stacked, own, theta, found in zip(bound.stacks, parts, thetas, bound.core.evaluated(thetas), strict=True):
            if found is not theta:
                for p in stacked.members:
                    state[p][TRAINED] = p.detach().clone()
                scatter(found, own, stacked.conv_groups)
        self._shown = self._look()

    def replaced(self) -> dict[Tensor, int]:
        """The parameters to which somebody has given other weights meanwhile, and their numbers."""
        now, then = self._look(), self._shown
        return {p: i for i, p in enumerate(self.bound.every) if now[2 * i : 2 * i + 2] != then[2 * i : 2 * i + 2]}

    def excuse(self, replaced: dict[Tensor, int]) -> None:
        """Takes what has happened to all other parameters as no change."""
        if self.bound.watch:
            self.bound.watch.excuse(self._before, {*range(len(self.bound.every))} - {*replaced.values()})

    def _look(self) -> Sequence[int]:
        if not self.bound.watch:
            return ()
        self.bound.watch.params = self.bound.here()
        return self.bound.watch.look()


def put_back(groups: Sequence[Group], state: State, swap: Swap | None) -> None:
    """Puts the weights that are trained back, but not where somebody has put others: training goes on from these.

    Args:
        groups, state: of the optimizer.
        swap: what was done; None where another optimizer did it, whose state this one has.
    """
    replaced = swap.replaced() if swap else {}
    for p in (p for group in groups for p in group["params"]):
        trained = state.get(p, {}).pop(TRAINED, None)
        if trained is not None and p not in replaced:
            p.copy_(trained)
    if swap:
        swap.excuse(replaced)

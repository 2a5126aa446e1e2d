"""How a user's parameters, groups and state meet the step: stacks of equal shapes, and views of the stacked state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress
from operator import call, is_, itemgetter, not_
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from autoranger.components.core.chain import Link
from autoranger.components.core.config import Compile, Config
from autoranger.components.core.errors import warn
from autoranger.components.core.rows import by_rows, can_look, is_matrix
from autoranger.components.core.shards import Shards, local, local_gradient
from autoranger.components.core.step import Step
from autoranger.components.core.transposed import transposed
from autoranger.components.kernel.compile import compile_step, require_ordinary
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.interpreter.interpret import Interpreter
from autoranger.components.kernel.kernel import Kernel
from autoranger.components.optimizer.groups import Group, Numbers
from autoranger.components.optimizer.stacked import StackedParameters, State, adopt
from autoranger.components.optimizer.stacking import gather, membership, scatter, stackable
from autoranger.components.optimizer.tensors import addresses, are_contiguous, contiguous, gradient, kind
from autoranger.components.optimizer.watch import Watch


class ParameterLayout:
    """An optimizer's parameters laid out for the step: which tensors form a stack, and their state.

    Every tensor in `state` is a view of the stacked state, so that both always agree. Groups and state belong to the
    user all the same: `fits` says before each step whether they are still what was laid out. Where they are not, or a
    parameter has its first gradient, a new layout takes over what there is: what it finds in `state` goes on, wherever
    it is from, and what it does not find begins. A parameter has state once it has had a gradient.

    Args:
        config: of the optimizer.
        groups, state: its `param_groups` and `state`.
        compile: see `ComposedOptimizer`.
        before: the layout until now; its stacks are kept where nothing has happened to them.
        partners: finds those of the step; see `Step`.
        state_dtype: see `ComposedOptimizer`.
    """

    def __init__(
        self,
        config: Config,
        groups: list[Group],
        state: State,
        compile: Compile,
        before: ParameterLayout | None = None,
        partners: Callable[[], Any] = lambda: None,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        self.groups = groups
        self.numbers: Numbers = Numbers(config, groups, before.numbers if before else None, state_dtype)
        self.core = self.numbers.core
        self.core.partners = partners() if self.core.is_collective else None
        by_chain = [names_of_state(chain) for chain in self.core.chains]
        self.names = {name for own in by_chain for name in own}
        self.most = max(map(len, by_chain))
        self.membership = membership(groups)
        # One that somebody has put into a group twice, of which torch warns, counts once.
        params = [[*dict.fromkeys(group["params"])] for group in groups]
        work = [[self._is_at_work(p, state) for p in own] for own in params]
        self.idle = [p for own, busy in zip(params, work, strict=True) for p in compress(own, map(not_, busy))]
        self.stacks: list[StackedParameters] = []
        self.group_of: list[int] = []
        known = before.in_use(state) if before else {}
        kernels = transposed(p for own in params for p in own)
        for index, (own, at_work) in enumerate(zip(params, work, strict=True)):
            for members in stackable([*compress(own, at_work)], kernels):
                self.stacks.append(self._stack(members, kernels.get(members[0], 0), index, state, known))
                self.group_of += [index] * len(members)
        self.every = [p for stacked in self.stacks for p in stacked.members]
        self.sharded = any(stacked.stack.shards for stacked in self.stacks)
        self.conv_groups = [stacked.conv_groups for stacked in self.stacks for _ in stacked.members]
        self.kinds = [*map(kind, self.every)]
        self.entries = [state[p] for p in self.every]
        readers = [reader(own) for own in by_chain]
        self.readers = [readers[stacked.stack.chain] for stacked in self.stacks for _ in stacked.members]
        self.tensors = [*self._find(self.entries)]
        self.places = [addresses(self.tensors[i :: self.most]) for i in range(self.most)]
        self.flags = [torch.full((), present, device=self.core.lr.device) for present in (False, True)]
        here = self.here()
        self.kernel = compile_step(self.core, here, compile)
        self.interpreter = None if self.kernel else interpreter(self.core, here)
        self.scheduled = bool(config.needs_total_steps)
        self.watch = Watch(here) if any(stacked.stack.copies for stacked in self.stacks) else None
        if self.watch and before and before.watch and (looks := before.watch.seen):
            seen = dict(zip(map(id, before.every), zip(looks[::2], looks[1::2], strict=True), strict=True))
            self.watch.seen = tuple(x for p in self.every for x in (seen[id(p)] if p in known else (None, None)))

    def _is_at_work(self, p: Tensor, state: State) -> bool:
        """Whether a parameter has a gradient, or had one."""
        if p.grad is not None:
            return gradient(p, p.grad) is not None
        return not state.get(p, {}).keys().isdisjoint(self.names)

    def in_use(self, state: State) -> dict[Tensor, tuple[StackedParameters, int]]:
        """The parameters to whose state nothing has happened, and where it is."""
        places = ((stacked, b) for stacked in self.stacks for b in range(len(stacked.members)))
        kinds = zip(places, self.kinds, strict=True)
        return {
            stacked.members[b]: (stacked, b)
            for (stacked, b), before in kinds
            if kind(stacked.members[b]) == before and stacked.is_intact(b, state)
        }

    def _stack(
        self,
        members: list[Tensor],
        conv_groups: int,
        group: int,
        state: State,
        known: dict[Tensor, tuple[StackedParameters, int]],
    ) -> StackedParameters:
        """A stack of these parameters: the one that there is, or else a new one with the state that there is."""
        found = [known.get(p) for p in members]
        owners = [link.component.id for link in self.core.chain(group) if link.component.state]
        if (
            found[0]
            and found == [(found[0][0], b) for b in range(len(found[0][0].members))]
            and [owner.id for owner in found[0][0].stack.owners] == owners
        ):
            stacked = found[0][0]
            stacked.stack.group = group
            self.core.take(stacked.stack)
            return stacked
        matrix, shards = is_matrix(members[0].shape, conv_groups), Shards.of(members[0], conv_groups)
        conv_groups = 0 if shards else conv_groups
        theta = gather([*map(local, members)], conv_groups, shards).contiguous()
        stack = self.core.add(theta, matrix=matrix, group=group, shards=shards)
        return StackedParameters(
            stack, members, [adopt(stack, b, p, state, conv_groups) for b, p in enumerate(members)], conv_groups
        )

    def fits(self, groups: list[Group], state: State) -> bool:
        """Whether groups, parameters and state are as they were laid out, and no other parameter has a gradient."""
        entries = [*map(state.get, self.every)]
        try:
            return (
                groups is self.groups
                and membership(groups) == self.membership
                and all(map(is_, entries, self.entries))
                and all(map(is_, self._find(entries), self.tensors))
                and self._is_where_it_was()
                and [*map(kind, self.every)] == self.kinds
                and all(p.grad is None for p in self.idle)
            )
        except KeyError:  # something was taken out of an entry
            return False

    def _is_where_it_was(self) -> bool:
        """Whether the memory of state is the same: of another name in each step, since who moves it moves it all."""
        turn = self.numbers.taken % self.most
        return addresses(self.tensors[turn :: self.most]) == self.places[turn]

    def _find(self, entries: list[Any]) -> Iterator[Tensor]:
        if len(self.core.chains) == 1:
            return chain.from_iterable(map(self.readers[0], entries)) if self.readers else iter(())
        return chain.from_iterable(map(call, self.readers, entries))

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        self.numbers.read()
        negated, here = self._negated(), self.here()
        self.begin_anew(here)
        if self.kernel is not None:
            self._step_compiled(self.kernel, here, negated)
        # The interpreter looks at values, which a step that somebody records must not.
        elif self.interpreter is not None and can_look(self.core.lr):
            self._step_by_operations(self.interpreter, here, negated)
        else:
            self._step_by_operations(self.core, here, negated)
        if self.watch:
            self.watch.note()
        self.numbers.advance()
        if self.scheduled:
            self._warn_at_the_end()

    def here(self) -> list[Tensor]:
        """What this process holds of each parameter."""
        return [*map(local, self.every)] if self.sharded else self.every

    def _gradients(self) -> list[Tensor | None]:
        return [*map(local_gradient, self.every)] if self.sharded else [p.grad for p in self.every]

    def _negated(self) -> list[bool]:
        """Which parameters go up their gradient; empty where none does."""
        signs = [group["maximize"] for group in self.groups]
        return [signs[index] for index in self.group_of] if any(signs) else []

    def begin_anew(self, here: list[Tensor]) -> None:
        """Lets components that keep a copy of weights begin with those that somebody has put in their place."""
        if not self.watch:
            return
        self.watch.params = here
        if changed := self.watch.changed():
            places = [(stacked.stack, b) for stacked in self.stacks for b in range(len(stacked.members))]
            for i in changed:
                stack, b = places[i]
                stack.restart_copies(b, gather([here[i]], self.conv_groups[i], stack.shards))

    def _warn_at_the_end(self) -> None:
        """Says once, in the first step after the planned ones, that the schedule has left no learning rate."""
        end = max(group["total_steps"] or 0 for group in self.groups)
        if self.numbers.taken != end + 1 or (self.core.lr.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        if max(self.numbers.rates()) <= 0:
            warn(
                f"the optimizer was built for total_steps={end}, which are over: its schedule has ended, and the "
                "learning rate of further steps is 0. Build it for the whole training, or set total_steps in its "
                "param_groups to go on."
            )

    def _step_compiled(self, kernel: Kernel, here: list[Tensor], negated: list[bool]) -> None:
        """The step in one call, on the tensors where they are; copies serve for those that are not contiguous."""
        thetas, grads = here, self._gradients()
        given, dtype = [g for g in grads if g is not None], thetas[0].dtype
        updated = self.every if len(given) == len(grads) else [p for p in self.every if p.grad is not None]
        if any(self.conv_groups) or not are_contiguous(thetas, dtype):
            thetas = [
                contiguous(by_rows(p, conv_groups), dtype)
                for p, conv_groups in zip(thetas, self.conv_groups, strict=True)
            ]
        if any(self.conv_groups) or not are_contiguous(given, dtype):
            pairs = zip(grads, self.conv_groups, strict=True)
            grads = [None if g is None else contiguous(by_rows(g, conv_groups), dtype) for g, conv_groups in pairs]
        if negated:
            grads = [-g if g is not None and sign else g for g, sign in zip(grads, negated, strict=True)]
        kernel(thetas, grads)
        if thetas is not here:
            for p, conv_groups, theta in zip(here, self.conv_groups, thetas, strict=True):
                if theta is not p:
                    by_rows(p.detach(), conv_groups).copy_(theta)
        # Autograd is to notice a backward through what has changed, as it does after any operation in place.
        increment_version(updated)

    def _step_by_operations(self, operations: Callable[..., None], here: list[Tensor], negated: list[bool]) -> None:
        """The step as operations of torch on stacks of tensors."""
        thetas, grads, masks, members, first = [], [], [], [], 0
        gradients = self._gradients()
        for stacked in self.stacks:
            mine = slice(first, first + len(stacked.members))
            members.append(here[mine])
            present = [p.grad is not None for p in stacked.members]
            thetas.append(gather(members[-1], stacked.conv_groups, stacked.stack.shards))
            given = [gradient(p, g) for p, g in zip(members[-1], gradients[mine], strict=True)]
            grad = gather(given, stacked.conv_groups, stacked.stack.shards) if any(present) else None
            grads.append(-grad if grad is not None and negated and negated[first] else grad)
            first = mine.stop
            partly = any(present) and not all(present)
            masks.append(torch.stack([self.flags[p] for p in present]).view(1, -1, 1, 1) if partly else None)
        operations(thetas, grads, masks)
        for stacked, theta, grad, parts in zip(self.stacks, thetas, grads, members, strict=True):
            if grad is not None:
                scatter(theta, parts, stacked.conv_groups)


def names_of_state(chain: Sequence[Link]) -> list[str]:
    """What a parameter that goes through a chain has in `state`."""
    return ["step", *(f"{link.component.id}.{name}" for link in chain for name in link.component.state)]


def reader(names: list[str]) -> Callable[[Any], tuple[Tensor, ...]]:
    """A function that reads these names from an entry of `state`."""
    if len(names) == 1:  # of which `itemgetter` makes no tuple
        return lambda entry: (entry[names[0]],)
    return itemgetter(*names)


def interpreter(core: Step, params: list[Tensor]) -> Interpreter | None:
    """The step as recorded operations, where there can be any: faster than the step itself, on a CPU."""
    try:
        require_ordinary(params)
        return Interpreter(core, params) if core.lr.is_cpu else None
    except UntraceableError:
        return None

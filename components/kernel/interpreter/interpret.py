"""Running a schedule without a compiler: scalars by Python, tensors by torch, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from autoranger.components.core.rounding import salt_of, stochastic
from autoranger.components.core.stack import Stack
from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.interpreter.blocks import Blocks
from autoranger.components.kernel.interpreter.scalars import Scalar, Scalars, bare
from autoranger.components.kernel.recording.between import work_between
from autoranger.components.kernel.recording.inputs import STATE
from autoranger.components.kernel.recording.program import Level, Node
from autoranger.components.kernel.recording.recording import Recording
from autoranger.components.kernel.recording.schedule import Schedule

BLOCK = 1 << 19
"""Numbers of a tensor that are dealt with at once: more bring little, and fewer cost calls (studies/04_step_time)."""


class Interpreter:
    """A step on a CPU as operations of torch, as recorded; to be called like the `Step` itself.

    Args:
        step: with all its stacks.
        thetas: the tensors of all stacks, of whatever type.

    Raises:
        UntraceableError: where the step cannot be recorded.
    """

    def __init__(self, step: Step, thetas: Sequence[Tensor]) -> None:
        self.step = step
        self.states = {stack: {STATE + k: x for k, x in stack.named_state().items()} for stack in step.stacks}
        for stack, state in self.states.items():
            if any(x.shape != stack.shape for k, x in state.items() if k.removeprefix(STATE) not in stack.of_pairs):
                raise UntraceableError("a state is not of its parameter's shape")
        rounded = any(x.dtype != step.dtype for x in (*thetas, *(x for s in self.states.values() for x in s.values())))
        self.recording = Recording(step, step.dtype, rounded=rounded)
        found = self.recording.schedules
        self.plans = {kind: plan(schedule, step.dtype) for kind, schedule in found.items()}
        self.sweeps = max((len(schedule.sweeps) for schedule in found.values()), default=0)
        self.between = work_between(self.recording, across=False)
        self.registers = Registers(step)

    @torch.no_grad()
    def __call__(
        self,
        thetas: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        active: Sequence[Tensor | None] | None = None,
    ) -> None:
        """Updates `thetas` and the state in place; see `Step.forward`."""
        self.step.steps += 1
        self.recording.compute_signals()
        common: dict[tuple[int, int], list[Scalar]] = {}
        totals: dict[str, Scalar] = {}
        steps = []
        for i, (stack, theta, grad) in enumerate(zip(self.step.stacks, thetas, grads, strict=True)):
            if grad is not None:
                key = stack.whole_kind, stack.group
                if key not in common:
                    common[key] = self._common(*key)
                steps.append(StackStep(self, stack, [*common[key]], totals, theta, grad, active[i] if active else None))
        for sweep in range(self.sweeps):
            parts = [part for step in steps for part in step.sweep(sweep)]
            for name, part in parts:
                totals[name] = totals.get(name, 0.0) + part
            for work in self.between[sweep]:
                if grads[work.stack] is not None:
                    work(active[work.stack] if active else None)
        self.registers.shrink()

    def _common(self, kind: int, group: int) -> list[Scalar]:
        """The values that all tensors of a kind and of a parameter group have in common."""

        def read(slot: int) -> Scalar:
            return bare(self.recording.scalar(scalars.reads[slot].name, group))

        scalars = self.plans[kind].scalars
        values = [*scalars.beginning]
        scalars.common(values, read)
        return values


class Plan:
    """What there is to do for one kind of tensor."""

    def __init__(self, schedule: Schedule, dtype: torch.dtype) -> None:
        self.schedule, self.scalars, self.dtype = schedule, Scalars(schedule), dtype
        self.conditions = [conditions(schedule, number) for number in range(schedule.count)]
        self._blocks: dict[object, Blocks] = {}

    def blocks(self, number: int, values: Sequence[Scalar], in_place: bool) -> Blocks:
        """What a pass does with each block, as conditions are."""
        outcomes = [outcome(values[self.scalars.slots[c]]) for c in self.conditions[number]]
        key = number, in_place, *outcomes
        if key not in self._blocks:
            known = {c: o for c, o in zip(self.conditions[number], outcomes, strict=True) if o is not None}
            self._blocks[key] = Blocks(self.schedule, number, known, self.dtype, in_place=in_place)
        return self._blocks[key]


@lru_cache(maxsize=64)
def plan(schedule: Schedule, dtype: torch.dtype) -> Plan:
    """The plan of a schedule, which many small optimizers share."""
    return Plan(schedule, dtype)


class Registers:
    """Memory for the values of a block, shared by all stacks."""

    def __init__(self, step: Step) -> None:
        self.like, self.size = step.lr, max((largest(stack.shape) for stack in step.stacks), default=0)
        self.all: list[Tensor] = []
        self.views: dict[torch.Size, list[Tensor]] = {}

    def of(self, shape: torch.Size, count: int) -> list[Tensor]:
        """The first `count` registers, in the shape of a block."""
        while len(self.all) < count:
            with torch.inference_mode(False):  # they may outlive it
                self.all.append(self.like.new_empty(self.size))
        views = self.views.setdefault(shape, [])
        views += [register[: shape.numel()].view(shape) for register in self.all[len(views) :]]
        return views[:count]

    def shrink(self) -> None:
        """Frees them at the end of a step where long rows have made them larger than blocks should be."""
        if self.size > BLOCK:
            self.all.clear()
            self.views.clear()


class StackStep:
    """A step of one stack."""

    def __init__(
        self,
        interpreter: Interpreter,
        stack: Stack,
        values: list[Scalar],
        totals: dict[str, Scalar],
        theta: Tensor,
        grad: Tensor,
        mask: Tensor | None,
    ) -> None:
        self.plan, self.registers = interpreter.plans[stack.whole_kind], interpreter.registers
        self.schedule, self.stack, self.values, self.totals, self.mask = self.plan.schedule, stack, values, totals, mask
        stack.count += 1 if mask is None else mask
        self.tensors = interpreter.states[stack] | {"theta": theta, "grad": grad}
        self.dtype = interpreter.step.dtype
        self.in_place = mask is None and all(x.dtype is self.dtype for x in self.tensors.values())
        self.kept: dict[Node, Tensor] = {}

    def sweep(self, number: int) -> Iterator[tuple[str, Scalar]]:
        """The passes of a sweep; yields this stack's parts of the sums over all tensors."""
        for this in self.schedule.sweeps[number] if number < len(self.schedule.sweeps) else ():
            self.plan.scalars.passes[this](self.values, self._read)
            for total, part in self.schedule.passes[this].parts.items():
                value = self.values[self.plan.scalars.slots[part]] if isinstance(part, Node) else part
                value = torch.as_tensor(value, dtype=torch.float64, device="cpu").expand(self.stack.count.shape)
                if self.mask is not None:
                    value = torch.where(self.mask, value, 0.0)
                yield total.name, bare(value.sum(dim=1, keepdim=True))
            self._run(this)

    def _read(self, slot: int) -> Scalar:
        node = self.plan.scalars.reads[slot]
        if node.op == "total":
            return self.totals[node.name]
        if node.op == "tensor_sum":
            return bare(self.kept[next(node.operands)].sum(dim=2, keepdim=True))
        if node.name == "updates":
            return bare(self.stack.count)
        return float(self.stack.shape[2 if node.name == "rows" else 3])

    def _keep(self, node: Node, here: Callable[[Tensor], Tensor], value: Tensor) -> None:
        """Keeps a block's values of rows for later passes."""
        shape = torch.Size([*self.stack.shape[:3], 1])
        if here is whole:
            self.kept[node] = value.expand(shape)
        else:
            if node not in self.kept:
                self.kept[node] = value.new_empty(shape)
            here(self.kept[node]).copy_(value)

    def _rounded(self, name: str, here: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        """What is to be stored of a block's values, as `Stack.rounded`."""
        held = self.tensors[name]
        if not name.startswith(STATE) or held.dtype != torch.bfloat16:
            return value
        rows = here(torch.arange(self.stack.shape[2], device="cpu").view(1, 1, -1, 1))
        salt = salt_of(name.removeprefix(STATE))
        return stochastic(value.expand(here(held).shape), here(self.stack.count), rows, salt)

    def _run(self, number: int) -> None:
        blocks = self.plan.blocks(number, self.values, self.in_place)
        scalars = as_tensors([self.values[self.plan.scalars.slots[s]] for s in blocks.scalars], self.dtype)
        keeps = self.schedule.passes[number].kept
        loads = [self.kept[node] if node.level == Level.ROW else self.tensors[node.name] for node in blocks.loads]
        casts = [node.level == Level.ELEMENT for node in blocks.loads]
        targets = [self.tensors[node.name] for node in blocks.targets]
        for here in cuts(self.stack.shape):
            shape = here(self.tensors["theta"]).shape
            outs = [*map(here, targets)]
            given = [
                *map(here, scalars),
                *(here(x).to(self.dtype) if cast else here(x) for x, cast in zip(loads, casts, strict=True)),
            ]
            values = blocks.run(shape, given, [*outs, *self.registers.of(shape, blocks.registers)])
            for i, value in zip(blocks.late, values, strict=False):
                value = self._rounded(blocks.targets[i].name, here, value)
                outs[i].copy_(value if self.mask is None else torch.where(here(self.mask), value, outs[i]))
            for node, value in zip(keeps, values[len(blocks.late) :], strict=True):
                self._keep(node, here, value)


def conditions(schedule: Schedule, number: int) -> list[Node]:
    """The scalar conditions of choices that a pass makes."""
    choices = (n for n in schedule.needed(schedule.passes[number].roots, number) if n.op == "select")
    found = (n.args[0] for n in choices if n.level > Level.SCALAR)
    return [*dict.fromkeys(c for c in found if isinstance(c, Node) and c.level == Level.SCALAR)]


def outcome(condition: Scalar) -> bool | None:
    """True or False where all candidates and tensors agree on a condition."""
    if not isinstance(condition, Tensor):
        return bool(condition)
    return True if condition.all() else None if condition.any() else False


def cuts(shape: torch.Size) -> Iterator[Callable[[Tensor], Tensor]]:
    """Functions that each take a block out of a tensor of this shape, or of one that broadcasts to it."""
    axis, length = longest(shape)
    if length >= shape[axis]:
        yield whole
    else:
        for start in range(0, shape[axis], length):
            yield partial(cut, axis, start, min(length, shape[axis] - start))


def whole(x: Tensor) -> Tensor:
    """The only block."""
    return x


def cut(axis: int, start: int, length: int, x: Tensor) -> Tensor:
    """A part of a tensor along an axis; all of it where it broadcasts along that."""
    return x if x.dim() == 0 or x.shape[axis] == 1 else x.narrow(axis, start, length)


def longest(shape: torch.Size) -> tuple[int, int]:
    """The axis to cut `[K, B, R, C]` along, of the first three, and the length of a block."""
    axis = max(range(3), key=lambda i: shape[i])
    return axis, max(1, BLOCK * shape[axis] // max(1, shape.numel()))


def largest(shape: torch.Size) -> int:
    """How many numbers a block has."""
    axis, length = longest(shape)
    return shape.numel() // shape[axis] * min(length, shape[axis])


def as_tensors(scalars: Sequence[Scalar], dtype: torch.dtype) -> list[Tensor]:
    """Scalars for torch."""
    if all(type(x) in (float, int) for x in scalars):
        return list(torch.tensor(scalars, dtype=dtype, device="cpu").unbind())
    return [torch.as_tensor(x, dtype=torch.bool if is_truth(x) else dtype, device="cpu") for x in scalars]


def is_truth(x: Scalar) -> bool:
    """Whether a scalar is a truth value, or some."""
    return isinstance(x, bool) or (isinstance(x, Tensor) and x.dtype == torch.bool)

"""Recording a step: it runs once on small tensors, and every operation that it calls becomes a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.chain import Link, head_of
from autoranger.components.core.matrices import is_matrix_operation, is_of_pairs
from autoranger.components.core.private import TorchDispatchMode
from autoranger.components.core.signals import SCALARS, Signals
from autoranger.components.core.step import Step
from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.fold import FoldedProgram
from autoranger.components.kernel.recording.inputs import SIGNAL, scalar_inputs
from autoranger.components.kernel.recording.program import Level, Node, Operand, Program
from autoranger.components.kernel.recording.rules import RULES

SHAPES = ((3, 5), (7, 11))
"""Rows and columns to record with. What differs between the two depends on the shape, and must not."""


def record(step: Step, kind: int, dtype: torch.dtype, rates: bool = False) -> Program:
    """The program of a step for tensors of this dtype.

    Args:
        step: what to record.
        kind: of the tensors; see `Stack`.
        dtype: of parameters and gradients; state has the one to compute in.
        rates: whether the rate stage is part of it, and its inputs the step's own numbers ("step: lr" and so on, and
            "steps", their count); else what comes out of that stage is an input ("signal lr" and so on).

    Raises:
        UntraceableError: where the step does what no rule covers.
    """
    programs = [record_at(step, kind, dtype, shape, rates) for shape in SHAPES]
    if programs[0].signature() != programs[1].signature():
        raise UntraceableError("a component computes with the shape of a tensor; use the functions of `rows` for that")
    return programs[0]


def record_at(step: Step, kind: int, dtype: torch.dtype, shape: tuple[int, int], rates: bool) -> Program:
    """The program as recorded with this many rows and columns."""
    candidates, device = step.lr.shape[0], step.lr.device
    recorder = Recorder(shape, (dtype, step.dtype))
    recorder.program.are_rows_cut, recorder.program.is_cut = bool(kind & 2), bool(kind & 4)

    def example(name: str, dtype: torch.dtype, initial: Callable[[Tensor], Tensor] = torch.clone) -> Tensor:
        x = torch.ones(candidates, 1, *shape, dtype=dtype, device=device)
        return recorder.remembered(initial(x), name) if is_of_pairs(initial) else recorder.input(x, name)

    for name, buffer in scalar_inputs(step, rates).items():
        recorder.input(buffer, name)
    if rates:
        with recorder:
            x = step.scalars()
    else:
        x = step.scalars()
        for name in SCALARS:
            recorder.input(getattr(x, name), SIGNAL + name)
    held: dict[str, dict[str, Tensor]] = {}
    for component in (link.component for link in step.chains[kind >> 3]):
        own = held.setdefault(component.id, {})
        for name, initial in component.state.items():
            own[name] = example(f"state {component.id}.{name}", step.dtype, initial)
    theta, grad = example("theta", dtype), example("grad", dtype)
    updates = recorder.input(torch.ones(candidates, 1, 1, 1, dtype=step.dtype, device=device), "updates")
    with recorder:
        x = x._replace(
            theta=theta.to(step.dtype), grad=grad.to(step.dtype), updates=updates, matrix=bool(kind & 1), state={}
        )
        for sweep in step.sweeps[kind >> 3]:
            if head := head_of(sweep):
                x = x._replace(collected=tuple(map(recorder.total, counted(head, x, len(step.chains)))))
            for link in sweep:
                state = held[link.component.id]
                x, changed = link.advance(x, state)
                for name, value in changed.items():
                    recorder.store(state[name], value)
        recorder.store(theta, x.theta)
    recorder.require_kept()
    return recorder.program


def counted(head: Link, x: Signals, chains: int) -> Sequence[Tensor]:
    """What a component collects, zero where a candidate has it off for these tensors, and perhaps on for others."""
    parts = head.component.collect(x)
    if not head.gated or chains == 1:
        return parts
    return [torch.where(head.component.switch, part, 0.0) for part in parts]


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Turns the operations that run under it into a program."""

    def __init__(self, shape: tuple[int, int], types: Iterable[torch.dtype] = (torch.float32, torch.float64)) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape, self.types = shape, {*types, torch.bool}
        self.program: Program = FoldedProgram()
        self._nodes: dict[int, Operand] = {}
        self._alive: list[Tensor] = []  # an id is one only as long as its tensor lives

    def input(self, tensor: Tensor, name: str) -> Tensor:
        """Makes a tensor an input of the program."""
        return self._note(tensor, self.program.input(name, self.level(tensor)))

    def remembered(self, tensor: Tensor, name: str) -> Tensor:
        """Makes state that is not of the matrices' shape an input, which only an operation on them may be given."""
        return self._note(tensor, Node("input", (), Level.ELEMENT, name))

    def store(self, target: Tensor, value: Tensor) -> None:
        """Notes that `target`, an input, becomes `value` in the end."""
        buffer, new = self._nodes[id(target)], self._node(value)
        assert isinstance(buffer, Node)
        if isinstance(new, Node) and new.op == "remembered":
            if new.name != buffer.name:
                raise UntraceableError("a component keeps what an operation on matrices remembers in another place")
        elif new is not buffer:
            self.program.stores[buffer] = new

    def require_kept(self) -> None:
        """UntraceableError where a component does not keep what an operation on matrices has made."""
        kept = [*self.program.stores.values()]
        if any(node.op == "matrix" and node not in kept for node in self.program.nodes):
            raise UntraceableError("a component does not keep the result of an operation on matrices among its state")

    def total(self, part: Tensor) -> Tensor:
        """The sum over all tensors of what `part` is for this one."""
        return self._note(torch.zeros_like(part), self.program.total(self._node(part)))

    def level(self, tensor: Tensor) -> Level:
        """What a tensor has one of, from its shape."""
        tail = tuple(tensor.shape[-2:])
        levels = {self.shape: Level.ELEMENT, (self.shape[0], 1): Level.ROW, (1, 1): Level.SCALAR, (): Level.SCALAR}
        if tail not in levels:
            raise UntraceableError(f"a value of shape {tuple(tensor.shape)} is no element's, row's or tensor's")
        return levels[tail]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if is_matrix_operation(func):
            return self._matrix(name, *args)
        result = func(*args, **kwargs)
        if name not in RULES or not isinstance(result, Tensor):
            raise UntraceableError(f"{func} has no rule")
        if name == "_to_copy" and result.dtype not in self.types:
            raise UntraceableError(f"a conversion to {result.dtype}")
        given = [self._node(a) if isinstance(a, Tensor) else a for a in args]
        named = {key: self._node(a) if isinstance(a, Tensor) else a for key, a in kwargs.items()}
        try:
            value = RULES[name](self.program, *given, **named)
        except TypeError:
            raise UntraceableError(f"{func} is called in a way that has no rule") from None
        if isinstance(value, Node) and self.level(result) < value.level:
            raise UntraceableError(f"{func} gives a value of shape {tuple(result.shape)}")
        return self._note(result, value)

    def _matrix(self, name: str, x: Tensor, *more: list[Tensor]) -> Tensor | list[Tensor]:
        """Notes an operation on matrices, which is not performed: examples of scalars may have another shape."""
        alike, memory, numbers = more or ([], [], [])
        nodes = ([*map(self._node, of)] for of in (alike, memory, numbers))
        made = self.program.matrix(name, self._node(x), *nodes)
        result = self._note(torch.empty_like(x), made)
        if not more:
            return result
        states = zip((*alike, *memory), (*made.alike, *made.memory), strict=True)
        return [result, *(self._note(torch.empty_like(s), Node("remembered", (), Level.ELEMENT, n)) for s, n in states)]

    def _node(self, tensor: Tensor) -> Operand:
        if id(tensor) not in self._nodes:
            raise UntraceableError("a component reads a tensor that is neither a signal nor its own")
        return self._nodes[id(tensor)]

    def _note(self, tensor: Tensor, value: Operand) -> Tensor:
        self._alive.append(tensor)
        self._nodes[id(tensor)] = value
        return tensor

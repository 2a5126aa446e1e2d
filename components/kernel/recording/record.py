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

Rule = Callable[..., Operand]

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


def arithmetic(op: str) -> Rule:
    """A rule for an operation that is one of the program's own."""
    return lambda g, *args: g.make(op, *args)


def scaled(op: str) -> Rule:
    """A rule for addition or subtraction, whose second operand may have a factor."""

    def rule(g: Program, a: Operand, b: Operand, alpha: float = 1) -> Operand:
        return g.make(op, a, b if alpha == 1 else g.make("mul", b, alpha))

    return rule


def same(g: Program, x: Operand, *shape: object, **how: object) -> Operand:
    """A view or a copy."""
    return x


def filled(value: float) -> Rule:
    """A rule for a tensor of one number over and over, in the shape of another."""
    return lambda g, like, **how: g.fill(value, like)


def added(op: str) -> Rule:
    """A rule for x + value · (a op b)."""

    def rule(g: Program, x: Operand, a: Operand, b: Operand, value: float = 1) -> Operand:
        return scaled("add")(g, x, g.make(op, a, b), value)

    return rule


def power(g: Program, x: Operand, exponent: Operand) -> Operand:
    """x to a power; squares and roots have operations of their own."""
    special = {0.5: "sqrt", -0.5: "rsqrt"}
    if exponent == 2:
        return g.make("mul", x, x)
    if not isinstance(exponent, Node) and exponent in special:
        return g.make(special[exponent], x)
    return g.make("pow", x, exponent)


def clamp(g: Program, x: Operand, *bounds: Operand | None, **named: Operand | None) -> Operand:
    """x between two bounds, either of which may be missing."""
    low, high = (*bounds, None, None)[:2]
    low, high = named.get("min", low), named.get("max", high)
    if low is not None:
        x = g.make("maximum", x, low)
    return x if high is None else g.make("minimum", x, high)


def add_up(g: Program, x: Operand, dims: list[int], keepdim: bool, dtype: torch.dtype | None = None) -> Operand:
    """The sum over columns, or over rows and columns."""
    over = sorted(d % 4 for d in dims or ())
    if not keepdim or not isinstance(x, Node) or x.level != Level.ELEMENT or over not in ([3], [2, 3]):
        raise UntraceableError(f"a sum over the dimensions {dims}")
    if x.op == "fill":
        return g.make("mul", count(g, x, over), *x.args)
    total = g.make("row_sum", x)
    return g.complete(total if over == [3] else g.make("tensor_sum", total))


def count(g: Program, x: Node, dims: list[int]) -> Operand:
    """How many numbers a sum over these dimensions has."""
    columns = g.input("columns", Level.SCALAR)
    return columns if len(dims) == 1 else g.make("mul", columns, g.input("rows", Level.SCALAR))


def average(g: Program, x: Node, dims: list[int], keepdim: bool = False, dtype: torch.dtype | None = None) -> Operand:
    """The mean over columns, or over rows and columns."""
    return g.make("div", add_up(g, x, dims, keepdim), count(g, x, dims))


def norm(g: Program, x: Node, order: float, dims: list[int], keepdim: bool = False) -> Operand:
    """The Euclidean norm over columns, or over rows and columns."""
    if order != 2:
        raise UntraceableError(f"a norm of order {order}")
    return g.make("sqrt", add_up(g, g.make("mul", x, x), dims, keepdim))


def softplus(g: Program, x: Operand, beta: float = 1, threshold: float = 20) -> Operand:
    """log(1 + exp(βx))/β, and x itself where βx is above the threshold; no exponential is made beyond it."""
    scaled_x = g.make("mul", x, beta)
    exponential = g.make("exp", g.make("minimum", scaled_x, float(threshold)))
    smooth = g.make("div", g.make("log1p", exponential), beta)
    return g.make("select", g.make("gt", scaled_x, threshold), x, smooth)


RULES: dict[str, Rule] = {
    **{op: arithmetic(op) for op in ("mul", "div", "neg", "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "cos")},
    **{op: arithmetic(op) for op in ("sin", "tanh", "abs", "sign", "floor", "maximum", "minimum", "remainder", "lerp")},
    **{op: arithmetic(op) for op in ("gt", "ge", "lt", "le", "eq", "ne")},
    **dict.fromkeys(("view", "expand", "slice", "select", "unsqueeze", "detach", "alias"), same),
    "_to_copy": lambda g, x, **how: g.make("number", x) if isinstance(x, Node) else x,
    "clone": same,
    "ones_like": filled(1.0),
    "zeros_like": filled(0.0),
    "full_like": lambda g, like, value, **how: g.fill(value, like),
    "new_zeros": lambda g, like, shape, **how: 0.0 if not shape else g.fill(0.0, like),
    "scalar_tensor": lambda g, value, **how: float(value),
    "add": scaled("add"),
    "sub": scaled("sub"),
    "rsub": lambda g, a, b, alpha=1: scaled("sub")(g, b, a, alpha),
    "bitwise_and": arithmetic("and"),
    "logical_and": arithmetic("and"),
    "bitwise_or": arithmetic("or"),
    "logical_or": arithmetic("or"),
    "bitwise_not": arithmetic("not"),
    "logical_not": arithmetic("not"),
    "reciprocal": lambda g, x: g.make("div", 1.0, x),
    "where": arithmetic("select"),
    "pow": power,
    "square": lambda g, x: g.make("mul", x, x),
    "clamp": clamp,
    "clamp_min": clamp,
    "addcmul": added("mul"),
    "addcdiv": added("div"),
    "sum": add_up,
    "mean": average,
    "linalg_vector_norm": norm,
    "softplus": softplus,
}
"""What each operation of torch is in a program, by its name in `torch.ops.aten`."""

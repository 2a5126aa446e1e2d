"""What each operation of torch is in a program."""

from __future__ import annotations

from collections.abc import Callable

import torch

from autoranger.components.kernel.errors import UntraceableError
from autoranger.components.kernel.recording.program import Level, Node, Operand, Program

Rule = Callable[..., Operand]
"""Makes a value of a program, of the program and an operation's arguments."""


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

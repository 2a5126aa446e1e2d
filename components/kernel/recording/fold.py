"""Corrections for bias, gathered into one factor for each tensor instead of applied to every element.

So a component can be written as in its paper, with m̂ = m / (1 − β1^t) and √v̂ + ε, and costs no more than one in which
somebody has moved the corrections by hand. No other factor moves: a correction is positive and neither tiny nor huge,
so that nothing overflows or changes its sign on the way. For the same reason a division by a scalar becomes a product
with its reciprocal only if the scalar does not depend on what is in the tensors.
"""

from __future__ import annotations

from autoranger.components.kernel.recording.inputs import SIGNAL
from autoranger.components.kernel.recording.program import Level, Node, Operand, Program, walk

BETAS = tuple(prefix + name for prefix in ("step: ", SIGNAL) for name in ("beta1", "beta2"))
"""The inputs that are β1 or β2, which are from 0 to below 1."""

COUNTS = ("updates", "steps", f"{SIGNAL}step")
"""The inputs that count from 1."""


def is_correction(value: Operand) -> bool:
    """Whether this is 1 − β^t, or made of such by products, quotients and roots."""
    if not isinstance(value, Node):
        return value == 1
    if value.op == "sub":
        one, power = value.args
        return one == 1 and isinstance(power, Node) and power.op == "pow" and is_beta_to_a_count(*power.args)
    return value.op in ("mul", "div", "sqrt", "rsqrt") and all(map(is_correction, value.args))


def is_beta_to_a_count(beta: Operand, count: Operand) -> bool:
    """Whether these are β1 or β2, and t. Of any other power nobody knows that it is below 1."""
    if isinstance(count, Node) and count.op == "number":
        count = count.args[0]
    return isinstance(beta, Node) and beta.name in BETAS and isinstance(count, Node) and count.name in COUNTS


def split(value: Operand) -> tuple[Operand, Operand]:
    """A value of elements or rows without its correction, and the correction; 1 where there is none."""
    if isinstance(value, Node) and value.op == "mul" and value.level > Level.SCALAR:
        a, b = value.args
        for rest, factor in ((a, b), (b, a)):
            if is_correction(factor):
                return rest, factor
    return value, 1.0


def level(value: Operand) -> Level:
    """What there is one of; a constant is a scalar."""
    return value.level if isinstance(value, Node) else Level.SCALAR


def is_scalar(value: Operand) -> bool:
    """Whether there is one number for a tensor."""
    return level(value) == Level.SCALAR


def depends_on_elements(value: Operand) -> bool:
    """Whether a scalar is a sum over a tensor, or made of one."""
    roots = [value] if isinstance(value, Node) else []
    return any(n.op in ("tensor_sum", "complete", "total") for n in walk(roots, lambda node: node.operands))


class FoldedProgram(Program):
    """A program that moves corrections for bias to the outside of what it is asked to make."""

    def make(self, op: str, *args: Operand) -> Operand:
        folded = None if all(map(is_scalar, args)) else self._fold(op, *args)
        return super().make(op, *args) if folded is None else folded

    def _fold(self, op: str, *args: Operand) -> Operand | None:
        """The same value with its correction outermost; None where there is none to move."""
        match op, args:
            case "div", (a, Node() as b) if is_scalar(b) and not depends_on_elements(b):
                return self.make("mul", a, self._ratio(1.0, b))
            case "div", (a, b) if not is_scalar(b):
                (x, c), (y, d) = split(a), split(b)
                return None if c == d == 1 else self.make("mul", self.make("div", x, y), self._ratio(c, d))
            case "mul", (a, b) if level(a) != level(b):  # the one of which there are fewer takes the correction
                few, many = sorted(args, key=level)
                x, c = split(many)
                return None if c == 1 else self.make("mul", x, self.make("mul", few, c))
            case "mul", (a, b):
                (x, c), (y, d) = split(a), split(b)
                return None if c == d == 1 else self.make("mul", self.make("mul", x, y), self._product(c, d))
            case "sqrt", (a,):
                x, c = split(a)
                return None if c == 1 else self.make("mul", self.make("sqrt", x), self.make("sqrt", c))
            case (("row_sum" | "tensor_sum"), (a,)):
                x, c = split(a)
                return None if c == 1 else self.make("mul", self.make(op, x), c)
            case (("add" | "sub"), (a, b)):
                return self._fold_sum(op, a, b) or (self._fold_sum(op, b, a) if op == "add" else None)
            case "select", (condition, a, b):
                (x, c), (y, d) = split(a), split(b)
                return None if c == 1 or c != d else self.make("mul", self.make("select", condition, x, y), c)
        return None

    def _fold_sum(self, op: str, a: Operand, b: Operand) -> Operand | None:
        """x·c ± b as (x ± b/c)·c, where b is a scalar or has a factor that c can join."""
        x, c = split(a)
        if c == 1:
            return None
        if is_scalar(b):
            return self.make("mul", self.make(op, x, self._ratio(b, c)), c)
        if isinstance(b, Node) and b.op == "mul":
            s, y = sorted(b.args, key=level)
            if level(s) < level(y):
                return self.make("mul", self.make(op, x, self.make("mul", y, self._ratio(s, c))), c)
        return None

    def _product(self, a: Operand, b: Operand) -> Operand:
        """a · b of corrections."""
        return a if b == 1 else b if a == 1 else self.make("mul", a, b)

    def _ratio(self, a: Operand, b: Operand) -> Operand:
        """a / b of scalars."""
        return a if b == 1 else self.make("div", a, b)

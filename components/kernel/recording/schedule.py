"""Cuts a program into passes over a tensor: as few as its sums allow, with each value stored as early as possible.

A *pass* goes over all rows of a tensor. Within a row it has *stages*. Each stage is a loop over the row's elements, and
a sum over the row that depends on another one needs one stage more; the row stays in the cache meanwhile. What depends
on a sum over the whole tensor waits for the next pass, and what depends on a sum over all tensors, or on an operation
on whole matrices, for the next *sweep*.

Between passes only sums, and what the program stores anyway, are kept. All other values are computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from autoranger.components.kernel.recording.program import Level, Node, Operand, Program, walk

Time = tuple[int, int]
"""The number of the pass and of the stage in which a value becomes known."""


@dataclass
class Pass:
    """One pass.

    Args:
        sums: the sums over a row that each stage computes.
        stores: the values that the last stage writes, by the input that is overwritten.
        kept: values of a row that later passes, or sums over the tensor, need.
        parts: what this tensor adds to sums over all tensors, by the sum.
    """

    sums: dict[int, list[Node]] = field(default_factory=dict)
    stores: dict[Node, Operand] = field(default_factory=dict)
    kept: list[Node] = field(default_factory=list)
    parts: dict[Node, Operand] = field(default_factory=dict)

    @property
    def roots(self) -> list[Operand]:
        """The values that the pass is there to compute."""
        return [*self.stores.values(), *self.kept, *self.parts.values()]

    @property
    def last(self) -> int:
        """The stage that writes."""
        return max(self.sums, default=0)


class Schedule:
    """The passes of a program.

    Args:
        program: what to compute.
        rounded: whether storing a value rounds it, so that it must not be read back instead of computed again.

    Attributes:
        passes: in order.
        sweeps: the numbers of the passes that run before, between and after sums over all tensors.
        kept: the values of a row that are kept between passes, each in a slot of its own.
        summed: those of them whose sum over the tensor is needed.
        crossing: the sums over a tensor that other processes have to complete.
        matrices: the results of operations on matrices, and the inputs that become them.
    """

    def __init__(self, program: Program, *, rounded: bool = False) -> None:
        self.program, self.rounded = program, rounded
        self._times: dict[Node, Time] = {}
        self._sweep_starts = {0}
        values = [v for v in (*program.stores.values(), *program.totals) if isinstance(v, Node)]
        nodes = program.nodes
        self._row_sums = [n for n in nodes if n.op == "row_sum"]
        self.crossing = [n for n in nodes if n.op == "complete" and n.level == Level.SCALAR]
        self.matrices = [(t, v) for t, v in program.stores.items() if isinstance(v, Node) and v.op == "matrix"]
        written = {t: self.written(t) for t in program.stores}
        self._when = {t: self.time(v)[0] if isinstance(v, Node) else 0 for t, v in written.items()}
        self.count = 1 + max([self.time(v)[0] for v in values], default=0)
        while late := self._overwritten_too_early():
            self._when[late[0]] = late[1]
        self.passes = [Pass() for _ in range(self.count)]
        self.kept: list[Node] = []
        self.summed: set[Node] = set()
        for target in program.stores:
            self.passes[self._when[target]].stores[target] = self.written(target)
        for number in reversed(range(self.count)):
            self._plan(number)
        starts = [*sorted(self._sweep_starts), self.count]
        self.sweeps = [list(range(a, b)) for a, b in pairwise(starts)]

    def time(self, node: Node) -> Time:
        """The number of the pass and of the stage in which a value becomes known."""
        if node not in self._times:
            now = max((self.time(a) for a in node.operands), default=(0, 0))
            if node.op == "row_sum":
                now = now[0], now[1] + 1
            elif node.op in ("tensor_sum", "complete", "total", "matrix"):
                now = now[0] + 1, 0
                if node.op != "tensor_sum":
                    self._sweep_starts.add(now[0])
            self._times[node] = now
        return self._times[node]

    def written(self, target: Node) -> Operand:
        """What a pass writes into a target: for the result of an operation on matrices what that is to work on."""
        value = self.program.stores[target]
        return value.args[0] if isinstance(value, Node) and value.op == "matrix" else value

    def stored(self, node: Operand, number: int) -> Node | None:
        """The input in which an earlier pass than `number` has stored this value; None if none has."""
        for target, value in self.program.stores.items():
            exact = not self.rounded or (isinstance(node, Node) and node.op in ("input", "matrix"))
            if value is node and exact and self._when[target] < number:
                return target
        return None

    def is_kept(self, node: Node, number: int) -> bool:
        """Whether an earlier pass has kept this value of a row for pass `number`."""
        if node.level != Level.ROW or node.op == "input":
            return False
        return node.op == "complete" or self.time(node)[0] < number

    def is_at_hand(self, node: Node, number: int) -> bool:
        """Whether an earlier pass has stored or kept this value for pass `number`."""
        return self.stored(node, number) is not None or self.is_kept(node, number)

    def operands_of(self, node: Node, number: int) -> Iterable[Node]:
        """The operands from which pass `number` computes this value; none, if it is at hand."""
        if self.is_at_hand(node, number) or node.op in ("tensor_sum", "complete", "total"):
            return ()
        return node.operands

    def settle(self, value: Operand, number: int, known: Mapping[Node, bool]) -> Operand:
        """What a value is in pass `number` if these conditions are known: one branch of each choice on them."""
        while isinstance(value, Node) and value.op == "select" and (condition := value.args[0]) in known:
            if self.is_at_hand(value, number):
                break  # the branch may have been overwritten since
            value = value.args[1] if known[condition] else value.args[2]  # type: ignore[index]
        return value

    def needed(self, roots: Iterable[Operand], number: int) -> list[Node]:
        """All values that pass `number` reads or computes to get the roots, operands first."""
        nodes = (root for root in roots if isinstance(root, Node))
        return walk(nodes, lambda node: self.operands_of(node, number))

    def stage(self, node: Node, number: int) -> int:
        """The stage of pass `number` in which a value is known."""
        at, stage = self.time(node)
        return stage if at == number else 0

    def _overwritten_too_early(self) -> tuple[Node, int] | None:
        """An input that a later pass still needs unchanged, and the number of that pass; None if there is none."""
        for number in range(self.count):
            roots = [self.written(t) for t in self.program.stores if self._when[t] == number]
            roots += [n for n in self._row_sums if self.time(n)[0] == number]
            for node in self.needed(roots, number):
                if node.op == "input" and self._when.get(node, number) < number and not self.stored(node, number):
                    return node, number
        return None

    def _plan(self, number: int) -> None:
        """Plans what a pass computes, for itself and for the passes after it, which are planned already."""
        this = self.passes[number]
        this.kept = [n for n in self.kept if self.time(n)[0] == number and n.op != "complete"]
        this.parts = {t: t.args[0] for t in self.shared if self._part_time(t) == number}
        for node in self.needed(this.roots, number):
            if node.op == "row_sum" and not self.is_kept(node, number):
                at = max(self.stage(a, number) for a in node.operands)
                this.sums.setdefault(at, []).append(node)
            if self.is_kept(node, number):
                self._keep(node)
            if node.op == "complete" and node.level == Level.ROW:
                self._keep(*node.operands)
            if node.op == "tensor_sum":
                self._keep(*node.operands)
                self.summed.update(node.operands)
        stored = [self.stage(v, number) for v in this.stores.values() if isinstance(v, Node)]
        this.sums.setdefault(max([*stored, *this.sums], default=0), [])

    @property
    def shared(self) -> list[Node]:
        """The sums of which each tensor's part is stored by itself: those over all tensors, and those in `crossing`."""
        return [*self.program.totals, *self.crossing]

    def sweep(self, value: Node) -> int:
        """The first sweep in which a sum over all tensors, or the result of an operation on matrices, is known."""
        return sum(start <= self.time(value)[0] for start in self._sweep_starts) - 1

    def _part_time(self, total: Node) -> int:
        part = total.args[0]
        return self.time(part)[0] if isinstance(part, Node) else 0

    def _keep(self, *nodes: Node) -> None:
        for node in nodes:
            if node not in self.kept:
                self.kept.append(node)

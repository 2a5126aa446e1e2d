"""One pass of a schedule as operations of torch on blocks of rows, with registers that are used again and again.

Fresh memory for every result costs an operation of torch more than its arithmetic. Here a pass has as many registers as
it has values at a time, and what is stored in the end is computed in its place where it can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoranger.components.kernel.interpreter.generated import function, named
from autoranger.components.kernel.recording.program import Level, Node, Operand, is_truth, walk
from autoranger.components.kernel.recording.schedule import Schedule


@dataclass
class Operation:
    """A value that is made of others."""

    node: Node
    op: str
    args: list[Operand]


class Blocks:
    """What a pass does with each block of rows.

    Args:
        schedule: of the passes.
        number: of this one.
        known: outcomes of conditions, which may let it skip something.
        dtype: to compute in.
        in_place: whether a target may be overwritten as soon as its old value is not needed any more.

    Attributes:
        scalars: the scalars that it needs.
        loads: the inputs, and the rows' values that earlier passes have kept, that it needs.
        targets: the inputs that it changes.
        registers: how many it needs.
        late: indices of the targets that are still to be written in the end.
        run: what makes of a block's shape, scalars and loads, targets and registers the values of `late`, and those
            that the pass has to keep for later ones.
    """

    def __init__(
        self, schedule: Schedule, number: int, known: Mapping[Node, bool], dtype: torch.dtype, *, in_place: bool
    ) -> None:
        this = schedule.passes[number]
        new = {target: schedule.settle(value, number, known) for target, value in this.stores.items()}
        changed = {target: value for target, value in new.items() if value is not target}
        operations, results = find(schedule, number, known, [*changed.values(), *this.kept])
        operations = fuse(operations, results)
        used = dict.fromkeys([*(a for o in operations for a in o.args), *results])
        made = {o.node for o in operations}
        self.targets = list(changed)
        self.scalars = [value for value in used if isinstance(value, Node) and not is_tensor(value)]
        self.loads = [value for value in used if isinstance(value, Node) and is_tensor(value) and value not in made]
        stored, kept = results[: len(changed)], results[len(changed) :]
        into = assign(operations, results, dict(zip(stored, self.targets, strict=True)) if in_place else {})
        places: list[object] = [*self.targets, *dict.fromkeys(place for place in into.values() if place not in changed)]
        self.registers = len(places) - len(self.targets)
        self.late = [i for i, value in enumerate(stored) if into.get(value) is not self.targets[i]]

        constants = [value for value in used if not isinstance(value, Node)]
        values = [*constants, *self.scalars, *self.loads, *(o.node for o in operations)]
        names = {value: f"v{i}" for i, value in enumerate(values)}
        given = [*self.scalars, *self.loads]
        lines = [f"{names[value]} = given[{i}]" for i, value in enumerate(given)]
        for o in operations:
            args = [*(["shape"] if o.op == "row_sum" else []), *(names[a] for a in o.args)]
            if o.op == "pow" and not isinstance(o.args[1], Node):
                args[-1] = f"float('{o.args[1]}')"  # torch has quick ways for some numbers
            args += [f"out=places[{places.index(into[o.node])}]"] if o.node in into else []
            lines.append(f"{names[o.node]} = do_{o.op}({', '.join(args)})")
        found = [names[value] for value in (*(stored[i] for i in self.late), *kept)]
        lines.append(f"return [{', '.join(found)}]")
        meanings: dict[str, object] = {names[c]: torch.tensor(c, dtype=dtype, device="cpu") for c in constants}
        meanings |= named(OPERATIONS) | {"do_number": lambda x: x.to(dtype)}
        self.run: Callable[[torch.Size, Sequence[Tensor], Sequence[Tensor]], list[Tensor]] = function(
            "shape, given, places", lines, meanings
        )


def is_tensor(value: Operand) -> bool:
    """Whether a value has rows."""
    return isinstance(value, Node) and value.level > Level.SCALAR


def find(
    schedule: Schedule, number: int, known: Mapping[Node, bool], roots: Sequence[Operand]
) -> tuple[list[Operation], list[Operand]]:
    """The operations that a pass needs to have the roots, and by what values it then has them."""
    instead: dict[Operand, Operand] = {}

    def settled(value: Operand) -> Operand:
        value = schedule.settle(value, number, known)
        value = value.args[0] if isinstance(value, Node) and value.op == "fill" else value
        return instead.get(value, value)

    def operands(node: Node) -> Iterator[Node]:
        return (v for a in schedule.operands_of(node, number) if isinstance(v := settled(a), Node) and is_tensor(v))

    operations = []
    for node in walk((v for root in roots if isinstance(v := settled(root), Node) and is_tensor(v)), operands):
        place = schedule.stored(node, number)
        if place and is_truth(node):
            operations.append(Operation(node, "ne", [place, 0.0]))
        elif place:
            instead[node] = place
        elif node.op == "input" or schedule.is_kept(node, number):
            continue
        elif node.op == "number" and not is_truth(node.args[0]):
            instead[node] = settled(node.args[0])  # everything is computed in one type
        else:
            operations.append(Operation(node, node.op, [settled(a) for a in node.args]))
    results = [settled(root) for root in roots]
    made = {o.node for o in operations}
    for i, value in enumerate(results):
        if isinstance(value, Node) and is_tensor(value) and value not in made:  # its place may be overwritten
            results[i] = Node("clone", (value,), value.level)
            operations.append(Operation(results[i], "clone", [value]))  # type: ignore[arg-type]
    return operations, results


def spread(operations: Sequence[Operation]) -> set[Node]:
    """The values, given and made, that have the shape of the block; others broadcast to it."""
    found = {a for o in operations for a in o.args if isinstance(a, Node) and a.level == Level.ELEMENT}
    for o in operations:
        found.discard(o.node)
        if o.op != "row_sum" and found.intersection(o.args):
            found.add(o.node)
    return found


def fuse(operations: Sequence[Operation], results: Sequence[Operand]) -> list[Operation]:
    """Products that are only added to something become part of the sum."""
    uses = Counter([*(a for o in operations for a in o.args), *results])
    products: dict[Operand, list[Operand]] = {o.node: o.args for o in operations if o.op == "mul" and uses[o.node] == 1}
    whole, kept = spread(operations), []
    gone: set[Operand] = set()
    for o in operations:
        for x, product in (o.args, o.args[::-1]) if o.op == "add" else ():
            operands = [x, *products.get(product, ())]
            # Where more than one of them broadcasts, torch does it number by number.
            if len(operands) == 3 and sum(a not in whole for a in operands) <= 1:
                o = Operation(o.node, "addcmul", operands)
                gone.add(product)
                break
        kept.append(o)
    return [o for o in kept if o.node not in gone]


def assign(
    operations: Sequence[Operation], results: Sequence[Operand], targets: Mapping[Operand, Node]
) -> dict[Operand, object]:
    """Where each value that fills a block is put: a target, once nobody needs its old value, or else a register."""
    last: dict[Operand, int] = {a: i for i, o in enumerate(operations) for a in o.args}
    last |= dict.fromkeys(results, len(operations))
    whole, into = spread(operations), dict[Operand, object]()
    free: list[object] = []
    for i, o in enumerate(operations):
        ended = [into[a] for a in dict.fromkeys(o.args) if a in into and last[a] == i and a not in targets]
        free += ended
        if o.node in whole and o.op in WITH_PLACE and not is_truth(o.node):
            target = targets.get(o.node)
            if target and last.get(target, 0) <= i:
                into[o.node] = target
            else:
                into[o.node] = free.pop() if free else len(into)
    return into


def row_sum(shape: torch.Size, x: Tensor) -> Tensor:
    """The sum of each row of a block, `[…, R, C]` to `[…, R, 1]`."""
    return (x if x.shape == shape else x.expand(shape)).sum(dim=-1, keepdim=True)


WITH_PLACE: dict[str, Callable[..., Tensor]] = {
    **{name: getattr(torch, name) for name in ("add", "sub", "mul", "div", "neg", "sqrt", "rsqrt", "exp", "expm1")},
    **{name: getattr(torch, name) for name in ("log", "log1p", "cos", "sin", "tanh", "abs", "sign", "floor", "pow")},
    **{name: getattr(torch, name) for name in ("maximum", "minimum", "remainder", "lerp", "addcmul")},
    "select": torch.where,
}
"""Operations on tensors that can be told where to put their result."""

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    **WITH_PLACE,
    **{name: getattr(torch, name) for name in ("gt", "ge", "lt", "le", "eq", "ne", "clone")},
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "row_sum": row_sum,
}
"""Operations of a program on tensors, but for `number`, which depends on the type to compute in."""

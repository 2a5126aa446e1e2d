"""The recorded step printed as one plain function of torch, for `torch.compile` to make kernels of.

What Triton kernels of our own are measured against on a GPU (see gpu.py). One function does all tensors; schedules are
computed once in it, and choices are `torch.where`, so that slow weights are read in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autoranger import Config
from autoranger.components.core.step import Step
from autoranger.components.kernel.interpreter.generated import function
from autoranger.components.kernel.recording.inputs import scalar_inputs
from autoranger.components.kernel.recording.program import Node, Program, walk
from autoranger.components.kernel.recording.record import record

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "=="}
INFIX |= {"ne": "!=", "and": "&", "or": "|", "pow": "**", "remainder": "%"}
CALLS = {
    "neg": "(-{})",
    "not": "(~{})",
    "number": "{}.float()",
    "row_sum": "{}.sum(-1, keepdim=True)",
    "tensor_sum": "{}.sum(0, keepdim=True)",
    "select": "torch.where({}, {}, {})",
    "lerp": "torch.lerp({}, {}, {})",
    "maximum": "larger({}, {})",
    "minimum": "smaller({}, {})",
}


def larger(a: Any, b: Any) -> Tensor:
    return torch.maximum(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bounded(a, b, "min")


def smaller(a: Any, b: Any) -> Tensor:
    return torch.minimum(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else bounded(a, b, "max")


def bounded(a: Any, b: Any, side: str) -> Tensor:
    """One of the two is a number."""
    return torch.clamp(a, **{side: b}) if isinstance(a, Tensor) else torch.clamp(b, **{side: a})


def printed(program: Program) -> tuple[Callable[..., list[Tensor]], list[Node]]:
    """A function from inputs by name to new values, and the inputs that these are for."""
    targets, lines, names = list(program.stores), list[str](), dict[Node, str]()

    def text(value: Node | float) -> str:
        return names[value] if isinstance(value, Node) else repr(float(value))

    for node in walk((v for v in program.stores.values() if isinstance(v, Node)), lambda n: n.operands):
        args = [text(a) for a in node.args]
        if node.op == "input":
            expression = f"given[{node.name!r}]"
        elif node.op == "fill":
            expression = args[0]
        elif node.op in INFIX:
            expression = f" {INFIX[node.op]} ".join(args)
        else:
            expression = CALLS.get(node.op, f"torch.{node.op}({{}})").format(*args)
        names[node] = f"v{len(names)}"
        lines.append(f"{names[node]} = {expression}")
    lines.append(f"return [{', '.join(text(program.stores[t]) for t in targets)}]")
    return function("given", lines, {"torch": torch, "larger": larger, "smaller": smaller}), targets


class Compiled:
    """A step of all parameters, in place, to be called like an optimizer's."""

    def __init__(self, config: Config, params: list[nn.Parameter], total_steps: int, **how: Any) -> None:
        self.params, device = params, params[0].device
        core = Step([config], total_steps, dtype=torch.float32, device=device)
        for p in params:
            core.add(p.detach().view(1, 1, *rows(p).shape).clone(), matrix=p.dim() > 1)
        self.states = [{k: x[0, 0] for k, x in stack.named_state().items()} for stack in core.stacks]
        self.updates, self.steps = torch.zeros((), device=device), core.steps
        functions = {matrix: printed(record(core, matrix, torch.float32, True)) for matrix in (False, True)}
        scalars = {name: x.view(-1)[0] for name, x in scalar_inputs(core, rates=True).items()}
        updates, steps, states = self.updates, self.steps, self.states

        def whole(thetas: list[Tensor], grads: list[Tensor]) -> None:
            steps.add_(1)
            updates.add_(1)
            for p, theta, grad, state in zip(params, thetas, grads, states, strict=True):
                run, targets = functions[p.dim() > 1]
                given = {"theta": theta, "grad": grad, "updates": updates, **scalars}
                given |= {"steps": steps.float(), "rows": float(theta.shape[0]), "columns": float(theta.shape[1])}
                given |= {f"state {name}": x for name, x in state.items()}
                new = run(given)
                for target, value in zip(targets, new, strict=True):
                    given[target.name].copy_(value)

        self.whole = torch.compile(whole, fullgraph=True, dynamic=False, **how)

    @torch.no_grad()
    def step(self) -> None:
        self.whole([rows(p.detach()) for p in self.params], [rows(p.grad) for p in self.params])


def rows(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1) if x.dim() > 1 else x.reshape(1, -1)

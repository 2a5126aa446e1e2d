"""Components are written with m̂ and v̂ as in their papers. The recorder moves the corrections; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoranger import Component, Config, Signals, Stage
from autoranger.components.core.component import Role, registry
from autoranger.components.core.rows import row_mean, tensor_mean, tensor_sum
from autoranger.components.core.step import Step
from autoranger.components.kernel.recording.fold import is_correction
from autoranger.components.kernel.recording.program import Level, Node, Program, walk
from autoranger.components.kernel.recording.record import record
from autoranger.components.optimizer import layout
from autoranger.components.presets import PRESETS
from tests.conftest import SMALL
from tests.recorded import assert_agree, run

FORMULAS: dict[str, Callable[[Signals], Tensor]] = {
    "Adam": lambda x: x.mean_hat / (x.variance_hat.sqrt() + x.eps),
    "epsilon first": lambda x: x.mean_hat / (x.eps + x.variance_hat.sqrt()),
    "epsilon inside": lambda x: x.mean_hat / (x.variance_hat + x.eps).sqrt(),
    "Nesterov": lambda x: (x.beta1 * x.mean_hat + (1 - x.beta1) * x.grad) / (x.variance_hat.sqrt() + x.eps),
    "subtracted": lambda x: x.mean_hat - 0.1 * x.theta + (0.2 * x.theta - x.mean_hat),
    "from a number": lambda x: 1 - x.variance_hat * 2,
    "both factors": lambda x: x.mean_hat * x.variance_hat,
    "square of a quotient": lambda x: (x.mean_hat / (x.variance_hat + 1)) ** 2,
    "chosen": lambda x: torch.where(x.grad > 0, x.mean_hat, x.mean / (1 - x.beta1**x.updates)),
    "row": lambda x: x.mean_hat - row_mean(x.mean_hat) * row_mean(x.theta),
    "tensor": lambda x: x.mean_hat / (tensor_mean(x.variance_hat).sqrt() + x.eps),
    "bounded": lambda x: torch.maximum(x.mean_hat, -x.variance_hat) / 3,
    "power that may be 0": lambda x: x.variance * (1 - x.beta2 ** (x.updates - 1)) + x.eps,
    "powers of elements": lambda x: x.mean + tensor_mean(x.theta * (1 - x.beta1 ** x.grad.abs())),
    "scalars of scalars": lambda x: x.mean_hat / nested(x.eps),
    "negative factor": lambda x: (x.variance_hat * -2.0 * (x.beta1 - 1)).sqrt(),
}


def nested(x: Tensor) -> Tensor:
    """A scalar in which others occur millions of times."""
    for _ in range(24):
        x = x * x / (x * x + 1) + x
    return x + 1


def component(formula: Callable[[Signals], Tensor]) -> type[Component]:
    class Formula(Component, register=False):
        stage = Stage.DIRECTION
        needs = frozenset({Role.FIRST_MOMENT, Role.SECOND_MOMENT})

        def forward(self, x: Signals) -> Signals:
            return x._replace(direction=formula(x))

    return Formula


def elements(program: Program) -> list[Node]:
    """What a program computes for each element."""
    roots = [value for value in program.stores.values() if isinstance(value, Node)]
    return [n for n in walk(roots, lambda n: n.operands) if n.level == Level.ELEMENT and n.op != "input"]


def recorded(config: Config) -> Program:
    step = Step([config], 100, dtype=torch.float64, device=torch.device("cpu"))
    return record(step, True, torch.float64, rates=True)


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
@pytest.mark.usefixtures("compiler", "interpreter")
def test_moved_corrections_change_nothing_but_rounding(
    formula: Callable[[Signals], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = component(formula)
    monkeypatch.setitem(registry, cls.id, cls)
    config = Config(lr=0.01, betas=(0.8, 0.95), components={cls.id: {}})
    compiled, interpreted = (run(config, SMALL, compile=compile) for compile in (True, False))
    monkeypatch.setattr(layout, "interpreter", lambda *_: None)
    operations = run(config, SMALL, compile=False)
    assert_agree(compiled, operations, 1e-12)
    assert_agree(interpreted, operations, 1e-12)


@pytest.mark.parametrize("preset", sorted({*PRESETS} - {"cautious_adamw", "stable_adamw"}))  # which read the update
def test_no_element_is_multiplied_by_a_correction(preset: str) -> None:
    for node in elements(recorded(Config.preset(preset))):
        scalars = [a for a in node.args if isinstance(a, Node) and a.level == Level.SCALAR]
        assert not any(map(is_correction, scalars)), node


def test_adamw_costs_what_it_costs_by_hand() -> None:
    """m: lerp; v: product, lerp; √v, + ε, m divided; decay: product, sum; η: product, sum."""
    operations = sorted(node.op for node in elements(recorded(Config())))
    assert operations == sorted(["lerp", "mul", "lerp", "sqrt", "add", "div", "mul", "add", "mul", "add"])


@pytest.mark.usefixtures("compiler")
def test_a_tiny_divisor_from_the_tensors_stays_a_divisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reciprocal would be infinite in float32."""
    cls = component(lambda x: x.grad / (tensor_sum(x.grad.abs()) + 0 * x.eps))
    monkeypatch.setitem(registry, cls.id, cls)
    p = nn.Parameter(torch.zeros(2, 3))
    p.grad = torch.full_like(p, 1e-40)
    Config(lr=1.0, weight_decay=0.0, components={cls.id: {}}).build([p], compile=True).step()
    torch.testing.assert_close(p.detach(), torch.full_like(p, -1 / 6))

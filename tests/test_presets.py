"""Every preset against an independent implementation, in float64, with the published defaults and with decay."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoranger import Config, ConfigError, load
from autoranger.components.presets import PRESETS
from autoranger.components.soap import eigenvectors
from tests.conftest import Array, Problem, advance, arrays, assert_close
from tests.references import reference

STEPS = 40


def make_problem() -> Problem:
    """Conv, matrix, single row, two columns and vector, with rows and steps of outliers; every gradient is there.

    No single column: others centre its rows of one number, which then never move.
    """
    rng = np.random.default_rng(1)
    shapes = [(4, 3, 3, 3), (5, 7), (5, 7), (1, 9), (6, 2), (7,)]
    params = [rng.normal(size=shape) * 10 ** rng.uniform(-1, 0.5) for shape in shapes]
    grads = [[rng.normal(size=shape) * 10 ** rng.uniform(-2, 0) for shape in shapes] for _ in range(STEPS)]
    for t in range(STEPS):
        grads[t][2][t % 5] *= 1000
        grads[t][0][t % 4] *= 100 if t % 10 == 7 else 1
    return Problem(params, grads, STEPS)


PROBLEM = make_problem()

Make = Callable[..., torch.optim.Optimizer]
Schedule = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


def package(name: str) -> Any:
    """A package that only tests need; they skip where it is not installed."""
    return pytest.importorskip(name, reason=f"{name} is not installed; make test installs it")


def timm(module: str) -> ModuleType:
    """One file of timm's optimizers. All of timm would need a torchvision that fits torch; its optimizers do not."""
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("timm is not installed; make test installs it")
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in (("timm", ""), ("timm.optim", "/optim")):
            empty = ModuleType(name)
            empty.__path__ = [spec.submodule_search_locations[0] + folder]
            patch.setitem(sys.modules, name, empty)
        return import_module(f"timm.optim.{module}")


def theirs(make: Make, schedule: Schedule | None = None) -> list[Array]:
    """The parameters after the problem's steps, by another implementation, with the rates of a scheduler of torch."""
    params = PROBLEM.leaves()
    optimizer = make(params)
    scheduler = schedule(optimizer) if schedule else None
    for grads in PROBLEM.grads:
        advance(optimizer, params, [grads])
        if scheduler:
            scheduler.step()
    return arrays(params)


def ours(config: Config) -> list[Array]:
    params = PROBLEM.leaves()
    optimizer = config.build(params, total_steps=STEPS)
    advance(optimizer, params, PROBLEM.grads)
    optimizer.eval()
    return arrays(params)


# Each line: the preset, what it overrides, and the other implementation with the same numbers.
IMPLEMENTATIONS: list[tuple[str, dict[str, Any], Make]] = [
    ("adamw", {}, lambda p: torch.optim.AdamW(p)),
    ("adamw", {"lr": 0.02, "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1)),
    ("adam", {}, lambda p: torch.optim.Adam(p)),
    ("adam", {"lr": 0.02, "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1)),
    ("amsgrad", {}, lambda p: torch.optim.Adam(p, amsgrad=True)),
    (
        "amsgrad",
        {"lr": 0.02, "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1, amsgrad=True),
    ),
    # torch.optim.SGD has momentum 0 unless told otherwise.
    ("sgd", {}, lambda p: torch.optim.SGD(p, momentum=0.9)),
    ("sgd", {"lr": 0.02, "weight_decay": 0.1}, lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.1)),
    (
        "sgd",
        {"components": {"sgd_momentum": {"nesterov": "yes"}, "l2_decay": {}}, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.1, nesterov=True),
    ),
    ("radam", {}, lambda p: torch.optim.RAdam(p)),
    # torch.optim.RAdam has L2 decay unless told otherwise; the preset decouples it, as the authors' code.
    (
        "radam",
        {"lr": 0.02, "weight_decay": 0.1},
        lambda p: torch.optim.RAdam(p, lr=0.02, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    (
        "radam",
        {"components": {"rectification": {}, "l2_decay": {}}, "weight_decay": 0.1},
        lambda p: torch.optim.RAdam(p, weight_decay=0.1),
    ),
    # pytorch_optimizer takes the authors' default: nothing happens before rectification, not even decay.
    (
        "radam",
        {"components": {"rectification": {"before": "nothing"}}, "weight_decay": 0.1},
        lambda p: package("pytorch_optimizer").RAdam(p, weight_decay=0.1, degenerated_to_sgd=False),
    ),
    # pytorch_optimizer's Ranger, unlike the author's, does nothing before rectification unless told otherwise.
    ("ranger", {}, lambda p: package("pytorch_optimizer").Ranger(p, degenerated_to_sgd=True)),
    (
        "ranger",
        {"lr": 0.02, "weight_decay": 0.1},
        lambda p: package("pytorch_optimizer").Ranger(p, lr=0.02, weight_decay=0.1, degenerated_to_sgd=True),
    ),
    # timm adds an ε to the norms, has momentum 0 unless told otherwise, and adapts only what has decay.
    # pytorch_optimizer adapts no vectors.
    ("lars", {}, lambda p: timm("lars").Lars(p, momentum=0.9, weight_decay=5e-4, eps=0)),
    (
        "lars",
        {"weight_decay": 0},
        lambda p: timm("lars").Lars(p, momentum=0.9, weight_decay=0, eps=0, always_adapt=True),
    ),
    # timm clips gradients to the global norm 1 unless told otherwise, and adapts only what has decay. pytorch_optimizer
    # does not correct the bias, clamps ‖θ‖ to 10 and leaves decoupled decay out of the ratio.
    ("lamb", {}, lambda p: timm("lamb").Lamb(p, max_grad_norm=None)),
    (
        "lamb",
        {"lr": 0.02, "weight_decay": 0},
        lambda p: timm("lamb").Lamb(p, lr=0.02, weight_decay=0, max_grad_norm=None, always_adapt=True),
    ),
    ("madgrad", {}, lambda p: package("madgrad").MADGRAD(p)),
    ("madgrad", {"weight_decay": 0.1}, lambda p: package("madgrad").MADGRAD(p, weight_decay=0.1)),
    ("madgrad", {"betas": (0, 0.999)}, lambda p: package("madgrad").MADGRAD(p, momentum=0)),
    # The authors' package rectifies unless told otherwise, which the paper does not.
    ("adabelief", {}, lambda p: package("adabelief_pytorch").AdaBelief(p, rectify=False)),
    (
        "adabelief",
        {"lr": 0.02, "weight_decay": 0.1, "eps": 1e-8},
        lambda p: package("adabelief_pytorch").AdaBelief(p, lr=0.02, weight_decay=0.1, eps=1e-8, rectify=False),
    ),
    (
        "adabelief",
        {"components": {"adabelief_variance": {}, "rectification": {}}, "weight_decay": 0.1},
        lambda p: package("adabelief_pytorch").AdaBelief(p, weight_decay=0.1),
    ),
    (
        "adabelief",
        {"components": {"adabelief_variance": {}, "amsgrad": {}}},
        lambda p: package("adabelief_pytorch").AdaBelief(p, rectify=False, amsgrad=True),
    ),
    # pytorch_optimizer adds ε to the root mean of v̂ as well, which these gradients are too large to notice.
    ("adams", {}, lambda p: package("pytorch_optimizer").AdamS(p)),
    (
        "adams",
        {"lr": 0.02, "weight_decay": 0.1},
        lambda p: package("pytorch_optimizer").AdamS(p, 0.02, weight_decay=0.1),
    ),
    ("lion", {}, lambda p: timm("lion").Lion(p)),
    ("lion", {"lr": 0.02, "weight_decay": 0.1}, lambda p: package("pytorch_optimizer").Lion(p, 0.02, weight_decay=0.1)),
    ("nadamw", {}, lambda p: timm("nadamw").NAdamW(p)),
    ("nadamw", {"lr": 0.02, "weight_decay": 0.1}, lambda p: timm("nadamw").NAdamW(p, 0.02, weight_decay=0.1)),
    ("ademamix", {}, lambda p: package("pytorch_optimizer").AdEMAMix(p, alpha=8.0, t_alpha_beta3=STEPS)),
    (
        "ademamix",
        {"lr": 0.02, "weight_decay": 0.1, "components": {"ademamix": {"beta3": 0.99, "alpha": 2.0}}},
        lambda p: package("pytorch_optimizer").AdEMAMix(
            p,
            0.02,
            betas=(0.9, 0.999, 0.99),
            alpha=2.0,
            t_alpha_beta3=STEPS,
            weight_decay=0.1,
            weight_decouple=True,
        ),
    ),
    # timm's own exponent is a third, and pytorch_optimizer lets the clipping grow one step ahead of the authors.
    ("adopt", {}, lambda p: timm("adopt").Adopt(p, clip_exp=0.25, decoupled=True)),
    (
        "adopt",
        {"lr": 0.02, "weight_decay": 0.1},
        lambda p: timm("adopt").Adopt(p, 0.02, clip_exp=0.25, weight_decay=0.1, decoupled=True),
    ),
    # MARS: pytorch_optimizer adds 1e-15 to v, which these small gradients notice, and timm has another first step.
    (
        "cautious_adamw",
        {"lr": 0.02, "weight_decay": 0.1},
        lambda p: timm("adamw").AdamWLegacy(p, 0.02, eps=1e-6, weight_decay=0.1, caution=True),
    ),
    (
        "stable_adamw",
        {"lr": 0.02, "weight_decay": 0.1},
        lambda p: package("pytorch_optimizer").StableAdamW(
            p, 0.02, betas=(0.9, 0.99), weight_decay=0.1, eps=1e-6, kahan_sum=False
        ),
    ),
    (
        "adam",
        {"components": {"signum": {}}},
        lambda p: package("pytorch_optimizer").SignSGD(p, 1e-3, momentum=0.9),
    ),
]


@pytest.mark.parametrize(
    ("preset", "overrides", "make"),
    [pytest.param(*case, id=f"{case[0]} {' '.join(case[1])}".strip()) for case in IMPLEMENTATIONS],
)
def test_a_preset_is_another_implementation(preset: str, overrides: dict[str, Any], make: Make) -> None:
    assert_close(ours(Config.preset(preset, **overrides)), theirs(make))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("overrides", [{}, {"lr": 0.02, "weight_decay": 0.1}], ids=["defaults", "other numbers"])
def test_a_preset_follows_its_papers(preset: str, overrides: dict[str, float]) -> None:
    """Covers what no package has right: AdaPNM (pytorch_optimizer corrects its ε for bias), RangerLars, Paratrooper."""
    config = Config.preset(preset, **overrides)
    assert_close(ours(config), reference(config)(config, PROBLEM.params, PROBLEM.grads, STEPS))


SCHEDULES: list[tuple[str, dict[str, Any], Schedule]] = [
    (
        "one_cycle",
        {},
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.02, total_steps=STEPS),
    ),
    (
        "one_cycle",
        {"fraction": 0.37, "div_factor": 4.0, "final_div_factor": 10.0, "base_momentum": 0.7, "max_momentum": 0.98},
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.02, STEPS, pct_start=0.37, div_factor=4, final_div_factor=10, base_momentum=0.7, max_momentum=0.98
        ),
    ),
    ("cosine_annealing", {}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=STEPS)),
    ("cosine_annealing", {"floor": 0.1}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.002)),
]


@pytest.mark.parametrize(("preset", "make"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
@pytest.mark.parametrize(("name", "settings", "schedule"), SCHEDULES)
def test_a_schedule_is_torchs(
    preset: str, make: Make, name: str, settings: dict[str, float], schedule: Schedule
) -> None:
    """Step t has the rate (and momentum) that the scheduler sets before its step number t, counted from 1."""
    base = Config.preset(preset, lr=0.02, weight_decay=0.1)
    config = Config.preset(preset, lr=0.02, weight_decay=0.1, components={**base.components, name: settings})
    more = {"momentum": 0.9} if preset == "sgd" else {}
    assert_close(ours(config), theirs(lambda p: make(p, lr=0.02, weight_decay=0.1, **more), schedule))


def rates(steps: int, total_steps: int, **components: object) -> list[float]:
    """The factor on the learning rate at each step."""
    p = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    optimizer = Config(lr=1.0, components=components).build([p], total_steps=total_steps)
    result = []
    for _ in range(steps):
        p.grad = torch.ones_like(p)
        optimizer.step()
        result += optimizer.get_last_lr()
    return result


@pytest.mark.filterwarnings("ignore:the optimizer was built for")
@pytest.mark.parametrize("name", ["cosine_annealing", "flat_cosine", "one_cycle", "chebyshev_steps"])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 5])
def test_a_schedule_is_a_number_in_the_shortest_training_and_beyond_its_end(name: str, total_steps: int) -> None:
    factors = rates(total_steps + 4, total_steps, **{name: {}})
    assert all(0 <= factor <= 10 for factor in factors)
    assert factors[-1] == factors[-2] == factors[-3]


def test_chebyshev_steps_are_those_of_another_implementation() -> None:
    chebyshev = import_module("pytorch_optimizer.lr_scheduler.chebyshev") if find_spec("pytorch_optimizer") else None
    if chebyshev is None:
        pytest.skip("pytorch_optimizer is not installed; make test installs it")
    # Theirs are 20 wide unless told otherwise.
    expected = chebyshev.get_chebyshev_steps(16, small_m=0.1)[chebyshev.get_chebyshev_permutation(16)]
    np.testing.assert_allclose(rates(32, 32, chebyshev_steps={"levels": 4}), np.repeat(expected, 2), rtol=1e-12)


def test_schedules_combine() -> None:
    together = rates(STEPS, STEPS, linear_warmup={}, flat_cosine={}, chebyshev_steps={})
    warmup, flat = rates(STEPS, STEPS, linear_warmup={}), rates(STEPS, STEPS, flat_cosine={})
    chebyshev = rates(STEPS, STEPS, chebyshev_steps={})
    np.testing.assert_allclose(together, np.minimum(warmup, flat) * np.array(chebyshev), rtol=1e-12)


def test_linear_decay_to_zero_is_torchs() -> None:
    """After a warmup of f/(1 + f) of all steps to a peak of 1/(1 + f), which a swept rate makes up for."""
    fraction, total = 0.25, 50
    ours = rates(total, total, linear_warmup={"fraction": fraction}, explore_exploit={"fraction": 1.0})
    p = nn.Parameter(torch.zeros(1))
    optimizer, turn = torch.optim.SGD([p], lr=1 / (1 + fraction)), round(total * fraction / (1 + fraction))
    up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / turn, 1, turn - 1)
    down = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, total - turn)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [up, down], [turn - 1])
    theirs = []
    for _ in range(total):
        theirs += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_global_norm_clipping_is_torchs() -> None:
    """Up to the 1e-6 that torch adds to the norm."""

    class Clipped(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            nn.utils.clip_grad_norm_(self.param_groups[0]["params"], max_norm=0.5)
            super().step()

    base = Config.preset("sgd")
    config = Config.preset("sgd", components={**base.components, "global_norm_clipping": {"max_norm": 0.5}})
    assert_close(ours(config), theirs(lambda p: Clipped(p, momentum=0.9)), 1e-6)


@pytest.mark.parametrize(("scale", "theirs"), [("moonlight", "match_rms_adamw"), ("original", "original")])
def test_muon_is_torchs(scale: str, theirs: str) -> None:
    """As far as bfloat16 goes, in which torch always orthogonalizes."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    problem = Problem(
        [p for p in PROBLEM.params if p.ndim == 2], [[g for g in s if g.ndim == 2] for s in PROBLEM.grads]
    )
    mine, others = problem.leaves(torch.float32), problem.leaves(torch.float32)
    config = Config.preset("muon", components={"muon": {"scale": scale}})
    advance(config.build(mine), mine, problem.grads[:3])
    advance(torch.optim.Muon(others, weight_decay=0.1, adjust_lr_fn=theirs), others, problem.grads[:3])
    for start, x, y in zip(problem.params, arrays(mine), arrays(others), strict=True):
        assert np.abs(x - y).max() < 0.05 * np.abs(y - start).max()


@pytest.mark.parametrize(("every", "tolerance"), [(100, 1e-9), (3, 1e-4)], ids=["first basis", "new bases"])
def test_soap_is_that_of_pytorch_optimizer(every: int, tolerance: float) -> None:
    """Of square matrices: the rest of the first basis is arbitrary for others. It computes new bases in float32.

    Without weight decay, with which it multiplies what it has already stepped.
    """
    rng, shapes = np.random.default_rng(2), [(6, 6), (7,), (4, 4)]
    problem = Problem(
        [rng.normal(size=shape) for shape in shapes],
        [[rng.normal(size=shape) for shape in shapes] for _ in range(12)],
        12,
    )
    mine, others = problem.leaves(), problem.leaves()
    config = Config.preset("soap", weight_decay=0.0, components={"soap": {"every": every}})
    advance(config.build(mine), mine, problem.grads)
    theirs = package("pytorch_optimizer").SOAP(
        others, lr=3e-3, betas=(0.95, 0.95), weight_decay=0.0, precondition_frequency=every
    )
    advance(theirs, others, problem.grads)
    assert_close(arrays(mine), arrays(others), tolerance)


def test_presets_are_described() -> None:
    for name, preset in PRESETS.items():
        assert preset.summary.endswith(".")
        assert "\n" not in preset.summary
        assert preset.source.startswith(("arXiv ", "http"))
        assert load(name) == Config.preset(name)


def test_fields_override_a_preset() -> None:
    assert Config.preset("ranger", lr=3e-4).lr == 3e-4
    assert Config.preset("ranger", lr=3e-4).components == Config.preset("ranger").components
    with pytest.raises(ConfigError, match="did you mean 'ranger_lars'"):
        Config.preset("rangerlars")


def test_soap_begins_with_gradients_that_are_zero_for_most_inputs() -> None:
    """As of a ReLU's units, or of a kernel's edges on small pictures; MKL fails on this covariance as it is."""
    gen = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 256, generator=gen)
    inputs[:, torch.randperm(256, generator=gen)[:200]] = 0.0
    grad = torch.randn(64, 8, generator=gen) @ inputs
    weight = torch.zeros(64, 256, requires_grad=True)
    optimizer = Config.preset("soap", lr=0.1, weight_decay=0.0).build([weight], total_steps=4)
    for _ in range(4):
        weight.grad = grad.clone()
        optimizer.step()
    assert weight.isfinite().all()
    assert (weight * grad).sum() < 0


def test_what_lapack_gives_up_in_single_precision_is_done_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    eigh, x = torch.linalg.eigh, torch.diag(torch.tensor([0.5, 1.0]))

    def stubborn(x: torch.Tensor) -> Any:
        if x.dtype == torch.float32:
            raise torch.linalg.LinAlgError
        return eigh(x)

    monkeypatch.setattr(torch.linalg, "eigh", stubborn)
    values, vectors = eigenvectors(x)
    assert values.dtype == vectors.dtype == torch.float32
    torch.testing.assert_close(values, torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(vectors.abs(), torch.eye(2))

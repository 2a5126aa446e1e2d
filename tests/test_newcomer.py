"""A new component is one new file: the contract's tests pass with no other file edited, in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MASK = '''"""Cautious optimizers: Liang et al. 2024, arXiv 2411.16085."""

import torch

from autoranger import Component, Hyper, Signals, Stage
from autoranger.components.core.rows import tensor_mean


class CautiousUpdate(Component):
    """Move only where the direction has the sign of the gradient."""

    stage = Stage.DIRECTION
    source = "arXiv 2411.16085"
    least = Hyper(1e-3, low=1e-4, high=0.5, log=True, positive=True)

    def forward(self, x: Signals) -> Signals:
        agrees = (x.direction * x.grad > 0).to(x.grad.dtype)
        return x._replace(direction=x.direction * agrees / torch.maximum(tensor_mean(agrees), self.least))
'''

EVERYTHING = '''"""A component that keeps state, sums over all tensors, and knows the length of the training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoranger import Component, Hyper, Signals, Stage
from autoranger.components.core.rows import tensor_size, tensor_sum


class GrowingMemory(Component):
    """Add a slow momentum whose part grows with time, and scale all directions down together."""

    stage = Stage.DIRECTION
    source = "https://example.org/growing-memory"
    beta = Hyper(0.99, low=0.9, high=0.999, maximum=1.0)
    most = Hyper(0.5, low=0.1, high=2.0, log=True, positive=True)
    state = {"slow": torch.zeros_like}
    needs_total_steps = True
    collective = True

    def collect(self, x: Signals) -> Sequence[Tensor]:
        return tensor_sum(x.direction * x.direction), tensor_size(x.theta)

    def forward(self, x: Signals) -> Signals:
        total, size = x.collected
        slow = torch.lerp(x.state["slow"], x.direction, 1 - self.beta)
        short = x.direction / torch.clamp((total / size).sqrt() / self.most, min=1.0)
        return x._replace(direction=short + slow * x.step / x.total, state={"slow": slow})
'''

REFERENCE = '''"""Of `cautious_update`, alone."""

import numpy as np


def trajectory(config, params, grads, total_steps):
    if len(config.components) > 1:
        raise NotImplementedError("nobody has written what cautious_update does in company")
    (beta1, beta2), least = config.betas, config.components["cautious_update"]["least"]
    thetas = [p.copy() for p in params]
    moments = [[np.zeros_like(p), np.zeros_like(p), 0] for p in params]
    for step in grads:
        for theta, moment, g in zip(thetas, moments, step):
            if g is None:
                continue
            m, v, n = moment
            m, v, n = moment[:] = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2, n + 1
            u = m / (1 - beta1**n) / (np.sqrt(v / (1 - beta2**n)) + config.eps)
            agrees = (u * g > 0).astype(float)
            u = u * agrees / max(agrees.mean(), least)
            theta -= config.lr * (u + config.weight_decay * theta)
    return thetas
'''


TESTS = [f"tests/test_{file}.py" for file in ("components", "structure", "generated", "interpret")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the tests need of a clone."""
    for folder in ("autoranger", "components", "search", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_a_component_in_one_file_passes_the_contract(tree: Path) -> None:
    """One of the two brings a reference, too; the other's tests against one are skipped, and say so."""
    (tree / "components" / "cautious_update.py").write_text(MASK, encoding="utf-8")
    (tree / "tests" / "reference_cautious_update.py").write_text(REFERENCE, encoding="utf-8")
    (tree / "components" / "growing_memory.py").write_text(EVERYTHING, encoding="utf-8")
    chosen = "cautious_update or growing_memory or generated"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-rps", *TESTS, "-k", chosen],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert "growing_memory has no reference: write one, from its paper" in run.stdout
    for name in (
        "components.py::test_it_follows_its_paper[default-cautious_update]",
        "components.py::test_off_is_identity[growing_memory]",
        "structure.py::test_imports_point_down_only[components/cautious_update.py]",
        "generated.py::test_the_page_says_what_the_components_say",
    ):
        assert f"PASSED tests/test_{name}" in run.stdout

"""The examples of docs/stacks.md are executed where their packages can be imported, and do what the guide says."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoranger import ComposedOptimizer

GUIDE = Path(__file__).parent.parent / "docs" / "stacks.md"
FIRST, *SECTIONS = re.split(r"^## ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
EXAMPLES = {section.splitlines()[0]: section for section in SECTIONS}


def code(section: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL))


def need(source: str) -> None:
    """Skips where a package of the example is not there, or not in working order."""
    for node in ast.walk(ast.parse(source)):
        names = [n.name for n in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[0] not in {"torch", "autoranger", *sys.stdlib_module_names}:
                try:
                    importlib.import_module(name)
                except Exception as error:  # some builds of packages for another torch fail in ways of their own
                    pytest.skip(f"{name} cannot be imported here: {error}")


@torch.no_grad()
def error(found: dict[str, Any]) -> float:
    return float(found["loss"](found["model"](found["inputs"]), found["targets"]))


def check_loop(found: dict[str, Any]) -> None:
    assert found["optimizer"].get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def check_trainer(found: dict[str, Any]) -> None:
    rates, longer = found["rates"], found["longer"]
    assert len({round(rate, 9) for rate in rates}) > 3  # not the base rate, flat
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert max(rates) == pytest.approx(1e-3)
    assert longer.optimizer.param_groups[0]["total_steps"] == longer.state.global_step == 40
    assert longer.optimizer.param_groups[0]["step"] == 40
    resumed = [x["learning_rate"] for x in longer.state.log_history if "learning_rate" in x and x["step"] > 24]
    assert max(resumed) > 0


def check_peft(found: dict[str, Any]) -> None:
    trained = {p for p in found["adapted"].parameters() if p.requires_grad}
    assert {p for p, entry in found["optimizer"].state.items() if entry} == trained


def check_lightning(found: dict[str, Any]) -> None:
    (optimizer,) = found["longer"].optimizers
    assert optimizer.param_groups[0]["step"] == optimizer.param_groups[0]["total_steps"] == 16
    assert found["longer"].callback_metrics["rate"] >= 0


def check_accelerate(found: dict[str, Any]) -> None:
    assert found["optimizer"].param_groups[0]["step"] == 20
    assert found["scheduler"].get_last_lr() == found["optimizer"].get_last_lr()


def check_timm(found: dict[str, Any]) -> None:
    assert isinstance(found["optimizer"], ComposedOptimizer)
    assert len({group["lr"] for group in found["optimizer"].param_groups}) > 1


def check_fastai(found: dict[str, Any]) -> None:
    assert found["learner"].opt.opt.param_groups[0]["step"] == 40


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "A loop of your own": check_loop,
    "Hugging Face Trainer": check_trainer,
    "PEFT": check_peft,
    "Lightning": check_lightning,
    "Accelerate": check_accelerate,
    "timm": check_timm,
    "fastai": check_fastai,
}


def test_every_example_is_checked() -> None:
    assert CHECKS.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs_and_does_what_is_said(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = code(EXAMPLES[title])
    need(source)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {"__name__": "example"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*the factors multiply")
        warnings.filterwarnings("error", message=".*total_steps")
        exec(compile(code(FIRST), "docs/stacks.md", "exec"), found)
        found["before"] = error(found)
        exec(compile(source, f"docs/stacks.md: {title}", "exec"), found)
    CHECKS[title](found)
    assert error(found) < found["before"]

"""Examples run: those in the docstrings of the public names, and the README's."""

from __future__ import annotations

import doctest
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
import torch
from torch import nn

import autoranger
from autoranger.components.core.component import registry

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)

EXECUTED = ("# my_task.py", "# train.py", "(Component)")
"""What marks blocks that are files of their own, which test_cli.py and test_tune.py run."""

NAMES = [name for name in autoranger.__all__ if name not in ("__version__", "tune")]
"""`tune` has trainings of its own to be tested with, in test_tune.py."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Examples write their files into a folder of their own, and leave no component behind."""
    monkeypatch.chdir(tmp_path)
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_runs(name: str) -> None:
    thing = getattr(autoranger, name)
    module = thing if isinstance(thing, ModuleType) else sys.modules[thing.__module__]
    parser, text = doctest.DocTestParser(), inspect.getdoc(thing) or ""
    example = parser.get_doctest(text, {**vars(module), "torch": torch}, name, module.__file__, 0)
    assert example.examples, "a public name has an example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("block", [b for b in BLOCKS if not any(mark in b for mark in EXECUTED)], ids=lambda b: b[:30])
def test_the_code_in_the_readme_runs(block: str) -> None:
    model = nn.Linear(2, 2)
    autoranger.Config.preset("ranger21").save("tuned.toml")
    given: dict[str, Any] = {"autoranger": autoranger, "torch": torch, "model": model, "epochs": 2}
    given["loader"] = [(torch.ones(3, 2), torch.tensor([0, 1, 1]))] * 2
    given["loss"] = nn.functional.cross_entropy
    given["objective"] = lambda trial: float(trial.suggest_categorical("warmup", [False, True]))
    exec(block.replace("n_trials=100", "n_trials=12"), given)

"""What the documentation says can be done: every block of code runs, in order, as a reader would copy it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autoranger as package
from autoranger import Config, Signals, Trial
from autoranger.components.core.component import registry
from autoranger.search.space import Space
from autoranger.search.tasks.diabetes import Diabetes
from autoranger.search.tasks.digits import Digits
from autoranger.search.tune.trial import Job
from tests import pages

ROOT = pages.ROOT
ELSEWHERE = {"docs/distributed.md": "test_distributed.py", "docs/stacks.md": "test_stacks.py"}
"""Pages with tests of their own, since what they need is not everywhere."""

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder of its own, short tasks, few subsets, and the names that pages take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for task in (Digits, Diabetes):
        monkeypatch.setattr(task, "steps", 4)
        monkeypatch.setattr(task, "full_steps", 8)
    every = Space._every
    monkeypatch.setattr(Space, "_every", lambda space: [space.plain, *every(space)[1:-1:50], space.default])
    before, modules = dict(registry), set(sys.modules)
    inputs, targets = torch.ones(6, 2), torch.tensor([0, 1] * 3)
    dataset = TensorDataset(inputs, targets)
    Config.preset("ranger21").save("tuned.toml")
    yield {
        "Signals": Signals,
        "DataLoader": DataLoader,
        "autoranger": package,
        "dataset": dataset,
        "epochs": 2,
        "loader": DataLoader(dataset, batch_size=3),
        "loss": nn.functional.cross_entropy,
        "model": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)),
        "nn": nn,
        "torch": torch,
        "trial": Trial(Job(Config(lr=0.1), seed=0), number=0, tell=lambda told: None),
    }
    registry.clear()
    registry.update(before)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    optuna.logging.set_verbosity(optuna.logging.INFO)


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ELSEWHERE])
def test_what_a_page_says_can_be_done(name: str, given: dict[str, Any], autoranger: Any) -> None:
    pages.run(ROOT / name, given, autoranger)


def test_the_readmes_commands_are_known() -> None:
    """The guides run the same ones; test_examples.py, test_cli.py and test_tune.py run the README's Python."""
    for block in pages.blocks(ROOT / "README.md", "bash"):
        for command in pages.commands(block):
            pages.parse(command)


@pytest.mark.parametrize("name", ["README.md", *PAGES])
def test_every_block_says_its_language(name: str) -> None:
    """Else it would be left out in silence."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(re.findall(r"^ *```", text, flags=re.MULTILINE)) == 2 * len(pages.blocks(text))
    assert {block.language for block in pages.blocks(text)} <= {"python", "bash", "toml", "text"}


COMPONENTS = re.findall(r"^### `(\w+)`$", (ROOT / "components/README.md").read_text().partition("## Presets")[0], re.M)
"""The project's own, as `make pages` lists them."""

PRIMER = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", (ROOT / "docs/primer.md").read_text(), re.M | re.S))


@pytest.mark.parametrize("name", sorted({*COMPONENTS, *PRIMER}))
def test_the_primer_says_why_a_component_exists_and_when_it_hurts(name: str) -> None:
    assert name in COMPONENTS, f"there is no {name} any more: take it out of docs/primer.md"
    assert name in PRIMER, f"say in docs/primer.md why {name} exists and when it hurts"
    assert "*Why.*" in PRIMER[name]
    assert "*When it hurts.*" in PRIMER[name]
    source = registry[name].source.replace("arXiv ", "https://arxiv.org/abs/")
    assert source in PRIMER[name], "cite the component's source"


def test_a_wrong_option_in_a_command_that_is_only_parsed_is_found() -> None:
    pages.parse("autoranger search --task cifar --device cuda")
    with pytest.raises(Exception, match="No such option"):
        pages.parse("autoranger search --task cifar --devise cuda")

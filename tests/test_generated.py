"""What is made from the components, for readers and editors, is as they say. `make pages` writes it.

The page lists the project's own components. A new one need not be there until somebody runs `make pages`, as CI does.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autoranger import Component
from autoranger.components.core.component import registry
from autoranger.components.core.reference import markdown
from autoranger.components.optimizer.signature import stub
from tests.references import in_any_company

COMPONENTS = Path(__file__).parent.parent / "components"
PAGE, STUB = COMPONENTS / "README.md", COMPONENTS / "optimizer" / "ranger21.pyi"
PRESETS = "## Presets"

ON_PAGE = re.findall(r"^### `(\w+)`$", PAGE.read_text(encoding="utf-8").partition(PRESETS)[0], flags=re.MULTILINE)
IN_STUB = re.findall(r"^        (\w+): bool \| _", STUB.read_text(encoding="utf-8"), flags=re.MULTILINE)


def known(names: list[str]) -> list[type[Component]]:
    return [cls for name, cls in registry.items() if name in names]


def test_the_page_says_what_the_components_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(known(ON_PAGE)), "write it again: make pages"


def test_the_stub_says_what_the_components_say() -> None:
    assert STUB.read_text(encoding="utf-8") == stub(known(IN_STUB)), "write it again: make pages"


def test_page_and_stub_have_the_same_components() -> None:
    assert set(ON_PAGE) == set(IN_STUB), "write them again: make pages"
    assert len(ON_PAGE) >= 24


@pytest.mark.parametrize("name", ON_PAGE)
def test_a_component_of_the_page_has_a_reference(name: str) -> None:
    assert name in in_any_company(), f"write {name} again from its paper, into tests/references_extended.py"

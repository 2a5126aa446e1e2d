"""Docstrings as the site shows them: doctests as blocks of code, comments beside attributes as what these are."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", flags=re.MULTILINE | re.DOTALL)


class Docstrings(griffe.Extension):
    """Changes docstrings as they are read from the source."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Puts fences around examples."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)

    def on_attribute(self, *, attr: griffe.Attribute, **others: Any) -> None:
        """Takes a comment at the end of an attribute's line for its docstring."""
        _, mark, comment = attr.source.partition("  # ")
        if mark and not attr.docstring:
            attr.docstring = griffe.Docstring(comment.strip(), parent=attr)

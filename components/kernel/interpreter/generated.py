"""Python that is printed instead of interpreted, since a loop over instructions costs as much as the instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def function(arguments: str, lines: Sequence[str], names: Mapping[str, object]) -> Callable[..., Any]:
    """A function of these arguments and lines, which may use the names."""
    known: dict[str, Any] = {**names}
    exec("\n    ".join([f"def generated({arguments}):", *(lines or ["pass"])]), known)
    return known["generated"]  # type: ignore[no-any-return]


def named(operations: Mapping[str, Callable[..., Any]]) -> dict[str, object]:
    """Operations by names that Python allows: `do_and` for `and`."""
    return {f"do_{name}": operation for name, operation in operations.items()}

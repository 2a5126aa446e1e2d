"""What commands print, and where."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress

from rich.markup import escape
from rich.table import Column, Table

from autoranger.terminal import Aside, Output

out, err = Output(), Aside(stderr=True)


def print_json(value: object) -> None:
    """Prints a JSON document on stdout; numbers that are not finite become null."""
    from autoranger.search.serialization import to_json

    unicode = "utf" in (sys.stdout.encoding or "").lower()
    print_text(json.dumps(to_json(value), indent=2, ensure_ascii=not unicode) + "\n")


def print_text(text: str) -> None:
    """Prints text on stdout unchanged; see `Output` for a reader that has gone."""
    with suppress(BrokenPipeError):
        sys.stdout.write(text)


def print_table(first: str, rows: Mapping[str, tuple[str, ...]], *columns: str) -> None:
    """Prints a table with one row for each key."""
    folding = (Column(column, overflow="fold") for column in columns)
    table = Table(Column(first, no_wrap=True), *folding, box=None, pad_edge=False)
    for name, row in rows.items():
        table.add_row(f"[bold]{escape(name)}[/]", *map(escape, row))
    out.print(table)

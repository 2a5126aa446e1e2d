"""Data as JSON has it, which is what a study can keep and a machine can read."""

from __future__ import annotations

import json
from typing import Any


def plain(value: Any) -> Any:
    """A value as it comes back from JSON: tuples are lists, and None stands for what is not finite."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)

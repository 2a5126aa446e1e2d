"""Named points in the space of components, each with its published defaults."""

from __future__ import annotations

from typing import Any

RANGER21 = (
    "adaptive_gradient_clipping",
    "gradient_centralization",
    "positive_negative_momentum",
    "norm_loss",
    "stable_weight_decay",
    "linear_warmup",
    "explore_exploit",
    "lookahead",
)
"""The eight components of Ranger21 (Wright and Demeure 2021, arXiv 2106.13731)."""

PRESETS: dict[str, dict[str, Any]] = {
    "ranger21": {"components": {name: {} for name in RANGER21}},
    "adamw": {"weight_decay": 1e-2},
}
"""The fields of `Config` that differ from its defaults, by name of the preset."""

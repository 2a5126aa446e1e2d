"""The baselines of every search: the optimizers that somebody would use who does not search.

A baseline is a family of arms, one for each weight decay that is tried, each with the grid of learning rates. The best
of a family after the first round stays in every later one, and is judged beside the finalists.
"""

from __future__ import annotations

from autoranger.components.core.config import Config
from autoranger.search.space import Space

DEFAULT, ADAMW, COSINE, LINEAR, RANDOM = "default", "adamw", "adamw_cosine", "adamw_linear", "random"
"""Roles of the baselines: full Ranger21, AdamW at a constant rate, AdamW whose rate falls after a warmup along a cosine
or a line, and the best of the random candidates of the first round."""

WORDS = {
    DEFAULT: "full Ranger21",
    ADAMW: "AdamW at a constant rate",
    COSINE: "AdamW with warmup and cosine",
    LINEAR: "AdamW with warmup and linear decay",
    RANDOM: "the best of random subsets",
}
"""What a role is called in a sentence."""

DECAYS = (0.01, 0.1, 1.0)
"""The weight decays of AdamW with a schedule. Less is like none: trainings of a search are short."""

PRESETS = {COSINE: "adamw_cosine", LINEAR: "adamw_d2z"}
"""AdamW with a schedule, by role."""


def called(role: str) -> str:
    """What a role is called in a sentence; the role itself where another version of autoranger knows it."""
    return WORDS.get(role, role)


def families(space: Space) -> dict[str, list[Config]]:
    """The arms of every baseline by role, but for the random one, which the first round finds."""
    scheduled = {
        role: [Config.preset(name, lr=space.base.lr, weight_decay=decay) for decay in DECAYS]
        for role, name in PRESETS.items()
    }
    return {DEFAULT: [space.default], ADAMW: [space.plain]} | scheduled

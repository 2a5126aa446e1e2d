"""The direction of a metric: whether higher or lower values are better."""

from __future__ import annotations

import re
from typing import Literal

Direction = Literal["maximize", "minimize"]
"""Whether a higher or a lower metric is better."""

ERRORS = {
    *("bpb", "bpc", "brier", "cer", "cost", "crps", "deviance", "err", "errors", "fid", "losses", "mae", "mape", "mse"),
    *("msle", "nll", "perplexity", "ppl", "regret", "rmse", "rmsle", "smape", "wer"),
}
"""Words in the name of a metric of which lower is better; besides all that end in "loss" or "error"."""

NEGATED = {"neg", "negative", "minus"}
"""Words in the name of such a metric with its sign changed, as in scikit-learn."""


def sign_of(direction: Direction | None) -> int:
    """The factor that makes higher values better; None means "maximize"."""
    return -1 if direction == "minimize" else 1


def score_name(metric: str, direction: Direction | None) -> str:
    """The name of a metric times its sign: "minus loss", if lower is better."""
    return f"minus {metric}" if direction == "minimize" else metric


def lower_is_better(name: str) -> bool:
    """Whether the name of a metric says that lower values are better."""
    words = set(re.findall("[a-z]+", name.lower()))
    return not words & NEGATED and any(word in ERRORS or word.endswith(("loss", "error")) for word in words)


def require_direction(what: str, metric: str, direction: Direction | None) -> None:
    """Raises ConfigError if the direction is invalid, or missing for a metric whose name says that lower is better.

    Args:
        what: the beginning of the message.
        metric: name of the metric.
        direction: as given; None if not given.
    """
    from autoranger.components.core.errors import ConfigError  # here, since the command line's help needs no torch

    if direction not in (None, "maximize", "minimize"):
        raise ConfigError(f"{what}: direction is {direction!r}, but must be 'maximize' or 'minimize'.")
    if direction is None and lower_is_better(metric):
        raise ConfigError(
            f"{what}: lower values of a metric called '{metric}' are usually better; say which with direction "
            '"minimize" or "maximize".'
        )

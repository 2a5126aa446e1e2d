"""The order in which components act within their stage.

A stage begins with AdamW's own part of it. A component that is not listed acts after those that are, unless it says
which one it `acts_before`.
"""

from __future__ import annotations

import math

ORDER = (
    # the learning rate
    "cosine_annealing",
    "explore_exploit",
    "flat_cosine",
    "linear_warmup",
    "one_cycle",
    "power_cooldown",
    "square_root_cooldown",
    "chebyshev_steps",
    # the gradient
    "global_norm_clipping",
    "adaptive_gradient_clipping",
    "gradient_centralization",
    "gradient_normalization",
    "mars",
    "l2_decay",
    "lars_trust_ratio",
    # the moments
    "adabelief_variance",
    "amsgrad",
    "positive_negative_momentum",
    "ademamix",
    "nesterov",
    # the denominator
    "rectification",
    "softplus_denominator",
    # the direction
    "adopt",
    "laprop",
    "lion",
    "madgrad",
    "muon",
    "sgd_momentum",
    "signum",
    "soap",
    "neuron_normalization",
    "cautious_mask",
    # the weight decay
    "norm_loss",
    "stable_weight_decay",
    "cautious_weight_decay",
    "corrected_weight_decay",
    # the update
    "annealed_trust_ratio",
    "trust_ratio",
    "hyperball",
    "update_clipping",
    "schedule_free",
    # the weights
    "lookahead",
    "weight_average",
)


Position = tuple[float, ...]
"""Where a component acts among those of its stage: positions are compared, as tuples are."""


def position(name: str) -> Position:
    """The position of a component that does not say what it `acts_before`."""
    return (ORDER.index(name) if name in ORDER else len(ORDER), math.inf)


def just_before(other: Position) -> Position:
    """The position of a component that acts before another one, and after all that act before that one anyway."""
    return (*other[:-1], 0, math.inf)

"""Named points in the space of components, each with its published defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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

MODERN = (
    *RANGER21,
    "global_norm_clipping",
    "cosine_annealing",
    "square_root_cooldown",
    "nesterov",
    "ademamix",
    "mars",
    "adopt",
    "lion",
    "muon",
    "neuron_normalization",
    "schedule_free",
    "weight_average",
    "cautious_mask",
    "cautious_weight_decay",
    "update_clipping",
    "hyperball",
)
"""Ranger21's components, and what people ask about today."""


@dataclass(frozen=True)
class Preset:
    """A published optimizer as a point in the space.

    Args:
        summary: one line that says what it is.
        source: where it was published.
        fields: those of `Config` that differ from its defaults.
    """

    summary: str
    source: str
    fields: Mapping[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "ranger21": Preset(
        "AdamW and eight components, the default.",
        "arXiv 2106.13731",
        {"components": dict.fromkeys(RANGER21, True)},
    ),
    "adamw": Preset(
        "Adam with decoupled weight decay; the defaults of torch.optim.AdamW.",
        "arXiv 1711.05101",
        {"weight_decay": 1e-2},
    ),
    "adamw_d2z": Preset(
        "AdamW whose rate, after a warmup, falls linearly to zero; the paper's moments, decay and tenth of warmup.",
        "arXiv 2502.15938",
        {
            "betas": (0.9, 0.95),
            "weight_decay": 0.1,
            "components": {"linear_warmup": {"fraction": 0.1}, "explore_exploit": {"fraction": 1.0}},
        },
    ),
    "adamw_cosine": Preset(
        "AdamW whose rate, after a warmup of a tenth, falls along half a cosine; the weight decay of DeiT.",
        "arXiv 2012.12877",
        {"weight_decay": 0.05, "components": {"linear_warmup": {"fraction": 0.1}, "cosine_annealing": {}}},
    ),
    "adam": Preset(
        "Adam, with weight decay as L2 regularization; the defaults of torch.optim.Adam.",
        "arXiv 1412.6980",
        {"weight_decay": 0.0, "components": {"l2_decay": {}}},
    ),
    "amsgrad": Preset(
        "Adam whose second moment never falls; the defaults of torch.optim.Adam(amsgrad=True).",
        "arXiv 1904.09237",
        {"weight_decay": 0.0, "components": {"amsgrad": {}, "l2_decay": {}}},
    ),
    "sgd": Preset(
        "SGD with momentum 0.9 and L2 regularization; otherwise the defaults of torch.optim.SGD.",
        "https://proceedings.mlr.press/v28/sutskever13.html",
        {"weight_decay": 0.0, "components": {"l2_decay": {}, "sgd_momentum": {}}},
    ),
    "radam": Preset(
        "Adam with a rectified adaptive rate, and decoupled weight decay; before rectification momentum alone.",
        "arXiv 1908.03265",
        {"weight_decay": 0.0, "components": {"rectification": {}}},
    ),
    "ranger": Preset(
        "RAdam, gradient centralization and Lookahead; the defaults of the author's code, 2020.",
        "https://github.com/lessw2020/Ranger-Deep-Learning-Optimizer",
        {
            "betas": (0.95, 0.999),
            "eps": 1e-5,
            "weight_decay": 0.0,
            "components": {"gradient_centralization": {}, "rectification": {}, "lookahead": {"k": 6}},
        },
    ),
    "lars": Preset(
        "SGD with momentum whose rate adapts to each tensor's norm; momentum and decay of the paper, lr of timm.",
        "arXiv 1708.03888",
        {"lr": 1.0, "weight_decay": 5e-4, "components": {"lars_trust_ratio": {}, "sgd_momentum": {}}},
    ),
    "lamb": Preset(
        "AdamW whose updates are as long as the tensor that they change; without clamps.",
        "arXiv 1904.00962",
        {"eps": 1e-6, "weight_decay": 1e-2, "components": {"trust_ratio": {"lower": 0.0, "upper": 1e9}}},
    ),
    # What the authors had in August 2019, with Lookahead as in its paper. Their code's later trust ratio is about
    # 1 (see `trust_ratio`), and its Lookahead first takes its slow weights at the end of the first k steps.
    "ranger_lars": Preset(
        "RAdam, LAMB's trust ratio within [0, 10] and Lookahead; also called Over9000.",
        "https://github.com/mgrankin/over9000",
        {
            "weight_decay": 0.0,
            "components": {"rectification": {}, "trust_ratio": {"lower": 0.0, "upper": 10.0}, "lookahead": {"k": 6}},
        },
    ),
    "paratrooper": Preset(
        "Ranger_lars whose trust ratio falls to 1 in the course of training.",
        "https://danielhanchen.github.io/optimizers/sota%20optimizers.htm",
        {
            "betas": (0.95, 0.999),
            "weight_decay": 1e-3,
            "components": {
                "rectification": {"epsilon": "inside"},
                "annealed_trust_ratio": {},
                "lookahead": {"k": 6},
            },
        },
    ),
    "madgrad": Preset(
        "Dual averaging with a cube root of the squared gradients, and L2 regularization; the authors' defaults.",
        "arXiv 2101.11075",
        {"lr": 1e-2, "eps": 1e-6, "weight_decay": 0.0, "components": {"l2_decay": {}, "madgrad": {}}},
    ),
    "adabelief": Preset(
        "AdamW whose second moment measures surprise; the authors' defaults, without rectification as in the paper.",
        "arXiv 2010.07468",
        {"eps": 1e-16, "weight_decay": 0.0, "components": {"adabelief_variance": {}}},
    ),
    "adapnm": Preset(
        "AdamW with positive-negative momentum; the authors' defaults.",
        "arXiv 2103.17182",
        {"weight_decay": 0.0, "components": {"positive_negative_momentum": {"beta0": 1.0}}},
    ),
    "adams": Preset(
        "AdamW with stable weight decay, its mean over all parameters as in the authors' code.",
        "arXiv 2011.11152",
        {"weight_decay": 1e-4, "components": {"stable_weight_decay": {"scope": "global"}}},
    ),
    "lion": Preset(
        "Steps along the sign of interpolated momentum; the authors' defaults.",
        "arXiv 2302.06675",
        {"lr": 1e-4, "weight_decay": 0.0, "components": {"lion": {}}},
    ),
    "muon": Preset(
        "Orthogonalized momentum for matrices, AdamW for vectors, at one rate; decay and scale of Moonlight.",
        "arXiv 2502.16982",
        {"weight_decay": 0.1, "components": {"muon": {}}},
    ),
    "normuon": Preset(
        "Muon whose rows move equally far, AdamW for vectors, at one rate; the authors' moments, decay of Moonlight.",
        "arXiv 2510.05491",
        {"weight_decay": 0.1, "components": {"muon": {}, "neuron_normalization": {}}},
    ),
    "soap": Preset(
        "Adam in the eigenbasis of the gradients' covariances; the authors' moments, decay and rate.",
        "arXiv 2409.11321",
        {"lr": 3e-3, "betas": (0.95, 0.95), "weight_decay": 0.01, "components": {"soap": {}}},
    ),
    "nadamw": Preset(
        "AdamW with Nesterov's momentum, in the plain form of the AlgoPerf benchmark; AdamW's defaults.",
        "https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ",
        {"weight_decay": 1e-2, "components": {"nesterov": {}}},
    ),
    "ademamix": Preset(
        "AdamW with a second, slow momentum that is warmed up over the whole training; the paper's numbers.",
        "arXiv 2409.03137",
        {"weight_decay": 0.0, "components": {"ademamix": {}}},
    ),
    "adopt": Preset(
        "Adam whose denominator does not know the gradient that it divides, clipped; the authors' defaults.",
        "arXiv 2411.02853",
        {"betas": (0.9, 0.9999), "eps": 1e-6, "weight_decay": 0.0, "components": {"adopt": {}}},
    ),
    "mars": Preset(
        "AdamW whose gradients, of matrices, have reduced variance; the authors' defaults, in the approximate form.",
        "arXiv 2411.10438",
        {"lr": 3e-3, "betas": (0.95, 0.99), "weight_decay": 0.0, "components": {"mars": {}}},
    ),
    "cautious_adamw": Preset(
        "AdamW that moves only where its direction agrees with the gradient; the authors' defaults.",
        "arXiv 2411.16085",
        {"eps": 1e-6, "weight_decay": 0.0, "components": {"cautious_mask": {}}},
    ),
    "schedule_free_adamw": Preset(
        "AdamW without a schedule: evaluated with an average of weights; the authors' defaults. Mind optimizer.eval().",
        "arXiv 2405.15682",
        {"lr": 2.5e-3, "weight_decay": 0.0, "components": {"schedule_free": {}}},
    ),
    "averaged_adamw": Preset(
        "AdamW evaluated with an exponential average of its weights; the defaults of torch. Mind optimizer.eval().",
        "https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema",
        {"weight_decay": 1e-2, "components": {"weight_average": {}}},
    ),
    "stable_adamw": Preset(
        "AdamW that takes shorter steps where gradients surprise it; moments, rate and decay of the paper's CLIP.",
        "arXiv 2304.13013",
        {"lr": 2e-3, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.2, "components": {"update_clipping": {}}},
    ),
}
"""Every preset by name."""

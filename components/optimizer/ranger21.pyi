# Made by `make pages` from the components: what editors and type checkers read.
# Components that are not here, as those of other packages, are arguments, too.

from collections.abc import Mapping
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from autoranger.components.core.config import Compile
from autoranger.components.optimizer.optimizer import ComposedOptimizer

class _ExploreExploit(TypedDict, total=False):
    """Keep the learning rate flat, then lower it linearly to zero over the last `fraction` of training."""

    fraction: float

class _LinearWarmup(TypedDict, total=False):
    """Raise the learning rate linearly from zero over the first `fraction` of training."""

    fraction: float

class _AdaptiveGradientClipping(TypedDict, total=False):
    """Scale a row's gradient down to at most `clip` times the row's own norm."""

    clip: float
    eps: float

class _GradientCentralization(TypedDict, total=False):
    """Subtract from each row of a gradient its mean."""

class _PositiveNegativeMomentum(TypedDict, total=False):
    """Two momenta of alternate steps, one added and one subtracted, which scales up the gradient noise."""

    beta0: float

class _NormLoss(TypedDict, total=False):
    """Weight decay towards rows of unit norm instead of towards zero."""

class _StableWeightDecay(TypedDict, total=False):
    """Divide the weight decay by the root of the mean second moment, so that it keeps pace with the step size."""

    scope: Literal["tensor", "global"]
    bound: float

class _Lookahead(TypedDict, total=False):
    """Every `k` steps move slow weights φ a part `alpha` of the way to θ, and restart from there."""

    k: int
    alpha: float

class _CosineAnnealing(TypedDict, total=False):
    """Lower the learning rate along half a cosine over the whole training, to the part `floor` of it."""

    floor: float

class _FlatCosine(TypedDict, total=False):
    """Keep the learning rate flat, then lower it along half a cosine over the last `fraction` of training."""

    fraction: float
    floor: float

class _OneCycle(TypedDict, total=False):
    """Raise the learning rate to its peak while β1 falls, then lower it to almost nothing while β1 rises."""

    fraction: float
    div_factor: float
    final_div_factor: float
    base_momentum: float
    max_momentum: float

class _PowerCooldown(TypedDict, total=False):
    """Keep the learning rate flat, then lower it by a power over the last `fraction` of training."""

    fraction: float
    power: float

class _SquareRootCooldown(TypedDict, total=False):
    """Keep the learning rate flat, then lower it over the last `fraction` of training, fast at first."""

    fraction: float

class _ChebyshevSteps(TypedDict, total=False):
    """Multiply the learning rate by Chebyshev's step sizes, in the fractal order that keeps them stable."""

    levels: int
    spread: float

class _GlobalNormClipping(TypedDict, total=False):
    """Scale all gradients down together to at most the norm `max_norm`."""

    max_norm: float

class _GradientNormalization(TypedDict, total=False):
    """Divide a gradient by its standard deviation."""

    eps: float

class _Mars(TypedDict, total=False):
    """Reduce the variance of a gradient by a part of what has changed since the step before."""

    gamma: float

class _L2Decay(TypedDict, total=False):
    """Add the weight decay to the gradient, as the loss term λ/2·‖θ‖² would, instead of decoupling it."""

class _LarsTrustRatio(TypedDict, total=False):
    """Scale each tensor's gradient to a part `coefficient` of the tensor's norm, before momentum sees it."""

    coefficient: float

class _AdabeliefVariance(TypedDict, total=False):
    """Let the second moment measure how far gradients are from the first one, instead of from zero."""

class _Amsgrad(TypedDict, total=False):
    """Never let the second moment fall."""

class _Ademamix(TypedDict, total=False):
    """Add to the first moment `alpha` times a second one, which remembers far older gradients."""

    beta3: float
    alpha: float

class _Nesterov(TypedDict, total=False):
    """Look one step ahead: let the gradient of this step count once more in the first moment that is used."""

class _Rectification(TypedDict, total=False):
    """Divide by the second moment only once it has seen enough gradients, and less boldly while they are few."""

    threshold: float
    before: Literal["momentum", "nothing"]
    epsilon: Literal["outside", "inside"]

class _SoftplusDenominator(TypedDict, total=False):
    """Smooth the denominator, so that parameters with tiny gradients do not take huge steps."""

    beta: float

class _Adopt(TypedDict, total=False):
    """Divide the gradient by the second moment of the steps before it, and only then take its momentum."""

    exponent: float

class _Laprop(TypedDict, total=False):
    """Divide the gradient by the denominator first, and take the momentum of that."""

class _Lion(TypedDict, total=False):
    """Step along the sign of a mixture of momentum and gradient, with no second moment."""

    beta2: float

class _Madgrad(TypedDict, total=False):
    """Dual averaging: step from the start along all gradients so far, divided by the cube root of their squares."""

class _Muon(TypedDict, total=False):
    """Step along the momentum of a matrix with all its singular values near 1; vectors are AdamW's."""

    momentum: float
    scale: Literal["moonlight", "original"]

class _SgdMomentum(TypedDict, total=False):
    """Step along a sum of gradients, with no second moment."""

    nesterov: Literal["no", "yes"]

class _Signum(TypedDict, total=False):
    """Step along the sign of the momentum, with no second moment."""

class _Soap(TypedDict, total=False):
    """Adam in the basis in which the gradients' covariances, of rows and of columns, are diagonal."""

    every: int

class _NeuronNormalization(TypedDict, total=False):
    """Let all rows of a matrix move about equally far, by a second moment for each row of its direction."""

    beta2: float

class _CautiousMask(TypedDict, total=False):
    """Move only the numbers whose direction agrees in sign with the gradient of this step, and those further."""

class _CautiousWeightDecay(TypedDict, total=False):
    """Decay only the numbers that the step moves towards zero anyway."""

class _CorrectedWeightDecay(TypedDict, total=False):
    """Let the weight decay follow the schedule of the learning rate once more, so that weights keep their norm."""

class _AnnealedTrustRatio(TypedDict, total=False):
    """Let layer-wise trust ratios lengthen the first updates, and fade out as Adam's estimates get reliable."""

    start: float

class _TrustRatio(TypedDict, total=False):
    """Make each tensor's update as long as the tensor itself, so that the learning rate is relative."""

    lower: float
    upper: float

class _Hyperball(TypedDict, total=False):
    """Keep the norm of each matrix as it is, and make the learning rate the length of a step relative to it."""

class _UpdateClipping(TypedDict, total=False):
    """Take a shorter step where gradients are much larger than the second moment expects."""

class _ScheduleFree(TypedDict, total=False):
    """Take gradients between the weights z that move and their average x, which is what to evaluate: no schedule."""

    beta: float
    warmup: int

class _WeightAverage(TypedDict, total=False):
    """Evaluate with an exponential average of the weights, and train on without it."""

    decay: float

class Ranger21(ComposedOptimizer):
    def __init__(
        self,
        params: ParamsT | nn.Module,
        lr: float | Tensor = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0001,
        total_steps: int | None = None,
        maximize: bool = False,
        compile: Compile = "auto",
        state_dtype: torch.dtype | None = None,
        explore_exploit: bool | _ExploreExploit = True,
        linear_warmup: bool | _LinearWarmup = True,
        adaptive_gradient_clipping: bool | _AdaptiveGradientClipping = True,
        gradient_centralization: bool | _GradientCentralization = True,
        positive_negative_momentum: bool | _PositiveNegativeMomentum = True,
        norm_loss: bool | _NormLoss = True,
        stable_weight_decay: bool | _StableWeightDecay = True,
        lookahead: bool | _Lookahead = True,
        cosine_annealing: bool | _CosineAnnealing = False,
        flat_cosine: bool | _FlatCosine = False,
        one_cycle: bool | _OneCycle = False,
        power_cooldown: bool | _PowerCooldown = False,
        square_root_cooldown: bool | _SquareRootCooldown = False,
        chebyshev_steps: bool | _ChebyshevSteps = False,
        global_norm_clipping: bool | _GlobalNormClipping = False,
        gradient_normalization: bool | _GradientNormalization = False,
        mars: bool | _Mars = False,
        l2_decay: bool | _L2Decay = False,
        lars_trust_ratio: bool | _LarsTrustRatio = False,
        adabelief_variance: bool | _AdabeliefVariance = False,
        amsgrad: bool | _Amsgrad = False,
        ademamix: bool | _Ademamix = False,
        nesterov: bool | _Nesterov = False,
        rectification: bool | _Rectification = False,
        softplus_denominator: bool | _SoftplusDenominator = False,
        adopt: bool | _Adopt = False,
        laprop: bool | _Laprop = False,
        lion: bool | _Lion = False,
        madgrad: bool | _Madgrad = False,
        muon: bool | _Muon = False,
        sgd_momentum: bool | _SgdMomentum = False,
        signum: bool | _Signum = False,
        soap: bool | _Soap = False,
        neuron_normalization: bool | _NeuronNormalization = False,
        cautious_mask: bool | _CautiousMask = False,
        cautious_weight_decay: bool | _CautiousWeightDecay = False,
        corrected_weight_decay: bool | _CorrectedWeightDecay = False,
        annealed_trust_ratio: bool | _AnnealedTrustRatio = False,
        trust_ratio: bool | _TrustRatio = False,
        hyperball: bool | _Hyperball = False,
        update_clipping: bool | _UpdateClipping = False,
        schedule_free: bool | _ScheduleFree = False,
        weight_average: bool | _WeightAverage = False,
        **components: bool | Mapping[str, float | int | str],
    ) -> None: ...

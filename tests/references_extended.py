"""Independent float64 references for the components beyond Ranger21's eight; see `references.py` for the protocol.

One function follows them all, in any company that a `Config` allows. It is written from the papers' formulas, with
NumPy and Python's own numbers; where sources disagree it takes the side that the component's docstring says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoranger import Config
from tests.references import Array, Gradients, Memory, Trajectory, change_gradient, decay_term, look_ahead, norm, rate


class Extended(Memory):
    """One parameter, and what an optimizer with further components remembers about it."""

    def __init__(self, param: Array) -> None:
        super().__init__(param)
        self.start = self.theta.copy()
        self.belief = np.zeros_like(self.theta)
        self.ams = np.zeros_like(self.theta)
        self.velocity = np.zeros_like(self.theta)
        self.s = np.zeros_like(self.theta)
        self.nu = np.zeros_like(self.theta)


def trajectory(config: Config, params: Sequence[Array], grads: Gradients, total_steps: int | None) -> list[Array]:
    """AdamW and any components that go together."""
    on = config.components
    memories = [Extended(p) for p in params]
    for t, step_grads in enumerate(grads, start=1):
        eta = config.lr * factor(config, t, total_steps)
        beta1 = momentum(config, t, total_steps)
        present = [(memory, g) for memory, g in zip(memories, step_grads, strict=True) if g is not None]
        length = math.sqrt(sum(float(np.sum(g**2)) for _, g in present))
        for memory, g in present:
            memory.updates += 1
            if "global_norm_clipping" in on and length > on["global_norm_clipping"]["max_norm"]:
                g = g * on["global_norm_clipping"]["max_norm"] / length
            g = regularize(config, memory.theta, normalize(config, change_gradient(config, memory.theta, g)))
            second_moment(config, memory, g, beta1)
            memory.direction = direction(config, memory, g, beta1, eta, t)
        numbers = sum(memory.v_hat.size for memory, _ in present)
        mean_of_all = sum(np.sum(memory.v_hat) for memory, _ in present) / max(numbers, 1)
        for memory, _ in present:
            update = memory.direction.copy()
            if "l2_decay" not in on and "lars_trust_ratio" not in on and not resting(config, memory):
                update += config.weight_decay * decay_term(config, memory, mean_of_all, eta)
            memory.theta -= eta * trust(config, memory, update, beta1) * update
            look_ahead(config, memory)
    return [memory.theta for memory in memories]


# Schedules


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at 1 along half a cosine."""
    return start + (end - start) * (1 - math.cos(math.pi * progress)) / 2


def factor(config: Config, t: int, total_steps: int | None) -> float:
    """The factor on the learning rate: the smallest one of the schedules, times the Chebyshev step."""
    on, n = config.components, t - 1
    factors = [rate(config, t, total_steps)]
    if "cosine_annealing" in on:  # 1608.03983
        factors.append(cosine(1, on["cosine_annealing"]["floor"], min(n / total_steps, 1)))
    if "flat_cosine" in on:
        flat = 1 - on["flat_cosine"]["fraction"]
        late = max(0.0, n / total_steps - flat) / on["flat_cosine"]["fraction"]
        factors.append(cosine(1, on["flat_cosine"]["floor"], min(late, 1)))
    if "one_cycle" in on:  # 1803.09820
        peak = on["one_cycle"]["fraction"] * total_steps - 1
        first = 1 / on["one_cycle"]["div_factor"]
        last = first / on["one_cycle"]["final_div_factor"]
        late = min((n - peak) / (total_steps - 1 - peak), 1)
        factors.append(cosine(first, 1, n / peak) if n <= peak else cosine(1, last, late))
    return min(factors) * (chebyshev(config, t, total_steps) if "chebyshev_steps" in on else 1)


def chebyshev(config: Config, t: int, total_steps: int) -> float:
    """2103.01338: the step size of this part of training, in fractal order, in units of the smallest."""
    parts = 2 ** config.components["chebyshev_steps"]["levels"]
    order = [0]
    while len(order) < parts:
        order = [number for s in order for number in (s, 2 * len(order) - 1 - s)]
    place = order[min((t - 1) * parts // total_steps, parts - 1)] + 1  # from 1, as in the paper
    largest, smallest = 1.0, 1 / config.components["chebyshev_steps"]["spread"]  # eigenvalues
    middle, radius = (largest + smallest) / 2, (largest - smallest) / 2
    return 1 / (middle - radius * math.cos((place - 0.5) * math.pi / parts))


def momentum(config: Config, t: int, total_steps: int | None) -> float:
    """β1 of this step."""
    if "one_cycle" not in config.components:
        return config.betas[0]
    cycle, n = config.components["one_cycle"], t - 1
    peak = cycle["fraction"] * total_steps - 1
    if n <= peak:
        return cosine(cycle["max_momentum"], cycle["base_momentum"], n / peak)
    late = min((n - peak) / (total_steps - 1 - peak), 1)
    return cosine(cycle["base_momentum"], cycle["max_momentum"], late)


# The gradient


def normalize(config: Config, g: Array) -> Array:
    """Gradient normalization, by Ranger21's code."""
    if "gradient_normalization" in config.components and g.size > 2:
        return g / (np.std(g, ddof=1) + config.components["gradient_normalization"]["eps"])
    return g


def regularize(config: Config, theta: Array, g: Array) -> Array:
    """Decay within the gradient: as the derivative of λ/2·‖θ‖², or with LARS's local rate (1708.03888)."""
    if "l2_decay" in config.components:
        return g + config.weight_decay * theta
    if "lars_trust_ratio" in config.components:
        local = 1.0
        if norm(theta) > 0 and norm(g) > 0:
            coefficient = config.components["lars_trust_ratio"]["coefficient"]
            local = coefficient * norm(theta) / (norm(g) + config.weight_decay * norm(theta))
        return local * (g + config.weight_decay * theta)
    return g


# Moments and direction


def second_moment(config: Config, memory: Extended, g: Array, beta1: float) -> None:
    """v and v̂: Adam's, AdaBelief's (2010.07468), AMSGrad's (1904.09237), AdaPNM's (2103.17182)."""
    on, beta2 = config.components, config.betas[1]
    memory.m = beta1 * memory.m + (1 - beta1) * g
    if "adabelief_variance" in on:
        memory.belief = beta2 * memory.belief + (1 - beta2) * (g - memory.m) ** 2 + config.eps
        memory.v = memory.belief.copy()
    else:
        memory.v = beta2 * memory.v + (1 - beta2) * g**2
    used = memory.v
    if "amsgrad" in on or "positive_negative_momentum" in on:
        memory.ams = np.maximum(memory.ams, memory.v)
        used = memory.ams
    memory.v_hat = used / (1 - beta2**memory.updates)


def direction(config: Config, memory: Extended, g: Array, beta1: float, eta: float, t: int) -> Array:
    """What is subtracted η times, before decay."""
    if "sgd_momentum" in config.components:
        memory.velocity = beta1 * memory.velocity + g
        ahead = config.components["sgd_momentum"]["nesterov"] == "yes"
        return g + beta1 * memory.velocity if ahead else memory.velocity
    if "madgrad" in config.components:
        return dual_average(config, memory, g, beta1, eta, t)
    m_hat = memory.m / (1 - beta1**memory.updates)
    if "positive_negative_momentum" in config.components:
        m_hat = alternate(config, memory, g, beta1)
    return np.zeros_like(m_hat) if resting(config, memory) else m_hat / denominator(config, memory)


def alternate(config: Config, memory: Extended, g: Array, beta1: float) -> Array:
    """Positive-negative momentum (2103.17182)."""
    beta0 = config.components["positive_negative_momentum"]["beta0"]
    before_previous, previous = memory.alternating
    now = beta1**2 * before_previous + (1 - beta1**2) * g
    memory.alternating = [previous, now]
    noise = math.sqrt((1 + beta0) ** 2 + beta0**2)
    return ((1 + beta0) * now - beta0 * previous) / noise / (1 - beta1**memory.updates)


def dual_average(config: Config, memory: Extended, g: Array, beta1: float, eta: float, t: int) -> Array:
    """MADGRAD (2101.11075): the way to θ_{t+1} = β1·θ_t + (1 − β1)·z, in units of η."""
    if eta == 0:
        return np.zeros_like(g)
    weight = (eta + config.eps) * math.sqrt(t)
    memory.s = memory.s + weight * g
    memory.nu = memory.nu + weight * g**2
    root = np.cbrt(memory.nu) + config.eps
    z = memory.start - np.divide(memory.s, root, out=np.zeros_like(root), where=root > 0)
    return (memory.theta - (beta1 * memory.theta + (1 - beta1) * z)) / eta


def rectifier(config: Config, updates: int) -> tuple[float, float]:
    """RAdam's ρ_t and r_t (1908.03265)."""
    beta2 = config.betas[1]
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * updates * beta2**updates / (1 - beta2**updates)
    if rho <= 4:
        return rho, math.nan
    return rho, math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))


def is_rectified(config: Config, memory: Extended) -> bool:
    return rectifier(config, memory.updates)[0] > config.components["rectification"]["threshold"]


def resting(config: Config, memory: Extended) -> bool:
    """Whether RAdam leaves this parameter alone in this step."""
    settings = config.components.get("rectification", {})
    return settings.get("before") == "nothing" and not is_rectified(config, memory)


def denominator(config: Config, memory: Extended) -> Array:
    """What m̂ is divided by: √v̂ + ε, RAdam's, and its softplus (1908.00700)."""
    on, bias2 = config.components, 1 - config.betas[1] ** memory.updates
    v = memory.v_hat * bias2
    if "rectification" not in on:
        result = np.sqrt(memory.v_hat) + config.eps
    elif not is_rectified(config, memory):
        result = np.ones_like(v)
    else:
        inside = on["rectification"]["epsilon"] == "inside"
        root = np.sqrt(v + config.eps) if inside else np.sqrt(v) + config.eps
        result = root / math.sqrt(bias2) / rectifier(config, memory.updates)[1]
    if "softplus_denominator" in on:
        beta = on["softplus_denominator"]["beta"]
        result = np.logaddexp(0, beta * result) / beta
    return result


# The update


def trust(config: Config, memory: Extended, update: Array, beta1: float) -> float:
    """The layer-wise factor of LAMB (1904.00962) or Paratrooper."""
    on = config.components
    ratio = norm(memory.theta) / norm(update) if norm(memory.theta) > 0 and norm(update) > 0 else 1.0
    if "trust_ratio" in on:
        return min(max(ratio, on["trust_ratio"]["lower"]), on["trust_ratio"]["upper"])
    if "annealed_trust_ratio" in on:
        rho, r = rectifier(config, memory.updates)
        b = math.sqrt(1 - config.betas[1] ** memory.updates) / (1 - beta1**memory.updates)
        limit = 1 / (r * b) if rho > 5 else on["annealed_trust_ratio"]["start"]
        return max(1.0, min(limit, ratio))
    return 1.0


REFERENCES_EXTENDED: dict[str, Trajectory] = dict.fromkeys(
    (
        "adabelief_variance",
        "amsgrad",
        "annealed_trust_ratio",
        "chebyshev_steps",
        "cosine_annealing",
        "flat_cosine",
        "global_norm_clipping",
        "gradient_normalization",
        "l2_decay",
        "lars_trust_ratio",
        "madgrad",
        "one_cycle",
        "rectification",
        "sgd_momentum",
        "softplus_denominator",
        "trust_ratio",
    ),
    trajectory,
)

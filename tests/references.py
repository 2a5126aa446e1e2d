"""Independent float64 references, written from the papers' formulas: one parameter, one row, one number at a time.

Protocol
    A reference is a function `trajectory(config, params, grads, total_steps) -> params after the last step`:
        config: the `autoranger.Config` to follow; what its components do is written out again here, in NumPy;
        params: the initial parameters, float64 arrays, which are not changed;
        grads: for each step the gradient of each parameter, or None where the parameter has none in that step;
        total_steps: T, or None.
    `REFERENCES` has one for each of Ranger21's eight components, by id: one function that follows all their mixtures.
    `REFERENCES_EXTENDED` of `references_extended.py` has one for each of the project's components until then, and
    `REFERENCES_MODERN` of `references_modern.py` for each of the newer ones: each is one function that follows every
    mixture of its own components and of those before.
    Any other component may have a reference in a file of its own, `tests/reference_<id>.py`, whose `trajectory` must
    follow the component alone; for company in which nobody knows what it should do it raises NotImplementedError. A
    component without a reference is tested by its properties.

A parameter without a gradient is left alone: moments, bias corrections and Lookahead count the updates of each
parameter, while schedules count the steps of the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from autoranger import Config
from autoranger.components.presets import RANGER21

Array = NDArray[np.float64]
Gradients = Sequence[Sequence[Array | None]]
Trajectory = Callable[[Config, Sequence[Array], Gradients, int | None], list[Array]]


def rows(x: Array) -> list[Array]:
    """The rows of a tensor, one for each output unit, as flat views; a vector or a scalar is a single row."""
    return list(x.reshape(len(x), -1)) if x.ndim > 1 else [x.reshape(-1)]


def norm(x: Array) -> float:
    """Euclidean norm."""
    return float(np.sqrt(np.sum(x**2)))


class Memory:
    """One parameter, and what an optimizer remembers about it."""

    def __init__(self, param: Array) -> None:
        self.theta = np.array(param, dtype=np.float64, order="C")
        self.updates = 0
        self.m = np.zeros_like(self.theta)
        self.alternating = [
            np.zeros_like(self.theta),
            np.zeros_like(self.theta),
        ]  # m of the last but one step, and last
        self.v = np.zeros_like(self.theta)
        self.v_max = np.zeros_like(self.theta)
        self.v_hat = np.zeros_like(self.theta)
        self.direction = np.zeros_like(self.theta)
        self.slow = self.theta.copy()


def trajectory(config: Config, params: Sequence[Array], grads: Gradients, total_steps: int | None) -> list[Array]:
    """AdamW and any of Ranger21's eight components, by section 2 of the design."""
    memories = [Memory(p) for p in params]
    for t, step_grads in enumerate(grads, start=1):
        eta = config.lr * rate(config, t, total_steps)
        present = [(memory, g) for memory, g in zip(memories, step_grads, strict=True) if g is not None]
        for memory, g in present:
            memory.updates += 1
            observe(config, memory, change_gradient(config, memory.theta, g))
        numbers = sum(memory.v_hat.size for memory, _ in present)
        mean_of_all = sum(np.sum(memory.v_hat) for memory, _ in present) / max(numbers, 1)
        for memory, _ in present:
            decay = decay_term(config, memory, mean_of_all, eta)
            memory.theta -= eta * (memory.direction + config.weight_decay * decay)
            look_ahead(config, memory)
    return [memory.theta for memory in memories]


def rate(config: Config, t: int, total_steps: int | None) -> float:
    """The factor on the learning rate: the smaller one of warmup (1910.04209) and explore-exploit (2003.03977)."""
    factors = [1.0]
    if "linear_warmup" in config.components:
        fraction = config.components["linear_warmup"]["fraction"]
        factors.append(max((1 - config.betas[1]) * t / 2, t / (fraction * total_steps)))
    if "explore_exploit" in config.components:
        fraction = config.components["explore_exploit"]["fraction"]
        factors.append(max(0.0, (total_steps - t) / (fraction * total_steps)))
    return min(factors)


def change_gradient(config: Config, theta: Array, g: Array) -> Array:
    """Adaptive gradient clipping (2102.06171), then gradient centralization (2004.01461)."""
    g = np.array(g, dtype=np.float64, order="C")
    if "adaptive_gradient_clipping" in config.components:
        tau = config.components["adaptive_gradient_clipping"]["clip"]
        eps = config.components["adaptive_gradient_clipping"]["eps"]
        for g_row, theta_row in zip(rows(g), rows(theta), strict=True):
            limit = tau * max(norm(theta_row), eps)
            if norm(g_row) > limit:
                g_row *= limit / norm(g_row)
    if "gradient_centralization" in config.components and g.ndim > 1:
        for g_row in rows(g):
            if len(g_row) > 1:  # its mean is all that a row of one number has
                g_row -= np.sum(g_row) / len(g_row)
    return g


def observe(config: Config, memory: Memory, g: Array) -> None:
    """The moments and the direction: Adam (1711.05101), or positive-negative momentum (2103.17182)."""
    beta1, beta2 = config.betas
    n = memory.updates
    memory.v = beta2 * memory.v + (1 - beta2) * g**2
    if "positive_negative_momentum" in config.components:
        beta0 = config.components["positive_negative_momentum"]["beta0"]
        before_previous, previous = memory.alternating
        now = beta1**2 * before_previous + (1 - beta1**2) * g
        memory.alternating = [previous, now]
        m_hat = ((1 + beta0) * now - beta0 * previous) / (1 - beta1**n)
        memory.v_max = np.maximum(memory.v_max, memory.v)
        memory.v_hat = memory.v_max / (1 - beta2**n)
        noise = np.sqrt((1 + beta0) ** 2 + beta0**2)
        memory.direction = m_hat / (noise * (np.sqrt(memory.v_hat) + config.eps))
    else:
        memory.m = beta1 * memory.m + (1 - beta1) * g
        memory.v_hat = memory.v / (1 - beta2**n)
        memory.direction = memory.m / (1 - beta1**n) / (np.sqrt(memory.v_hat) + config.eps)


def decay_term(config: Config, memory: Memory, mean_of_all: float, eta: float) -> Array:
    """What λ multiplies: θ, with norm loss (2103.06583) and stable weight decay (2011.11152), within its bound."""
    decay = memory.theta.copy()
    if "norm_loss" in config.components:
        for row in rows(decay):
            if norm(row) > 0:
                row *= 1 - 1 / norm(row)
    if "stable_weight_decay" in config.components:
        over_all = config.components["stable_weight_decay"]["scope"] == "global"
        mean = mean_of_all if over_all else np.mean(memory.v_hat)
        if mean > 0:  # all gradients have been zero until now: nothing to keep pace with
            decay /= np.sqrt(mean)
            part, bound = eta * config.weight_decay / np.sqrt(mean), config.components["stable_weight_decay"]["bound"]
            if part > bound:
                decay *= (bound / part) ** 2
    return decay


def look_ahead(config: Config, memory: Memory) -> None:
    """Lookahead (1907.08610)."""
    if "lookahead" in config.components:
        k, alpha = config.components["lookahead"]["k"], config.components["lookahead"]["alpha"]
        if memory.updates % k == 0:
            memory.slow += alpha * (memory.theta - memory.slow)
            memory.theta = memory.slow.copy()


REFERENCES: dict[str, Trajectory] = dict.fromkeys(RANGER21, trajectory)


def in_any_company() -> dict[str, Trajectory]:
    """The references of the project's own components, each of which follows all mixtures of those before it and its."""
    # These modules import this one, and are therefore imported late.
    newer = [import_module(f"tests.references_{name}") for name in ("extended", "modern")]
    return REFERENCES | newer[0].REFERENCES_EXTENDED | newer[1].REFERENCES_MODERN


def reference(config: Config) -> Trajectory:
    """The reference that follows this config; NotImplementedError, naming the component, where there is none."""
    known = in_any_company()
    others = [name for name in config.components if name not in known]
    if not others:
        return max((known[name] for name in config.components), key=[*known.values()].index, default=trajectory)
    for name in others:
        if not find_spec(f"tests.reference_{name}"):
            raise NotImplementedError(
                f"{name} has no reference: write one, from its paper, in tests/reference_{name}.py"
            )
    if len(others) > 1:
        raise NotImplementedError(f"no reference follows {' and '.join(others)} together")
    own: Trajectory = import_module(f"tests.reference_{others[0]}").trajectory
    return own

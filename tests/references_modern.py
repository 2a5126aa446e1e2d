"""Independent float64 references for the components from after Ranger21; see `references.py` for the protocol.

One function follows them all, in any company that a `Config` allows. It is written from the papers' formulas, with
NumPy and Python's own numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoranger import Config
from tests import references_extended as extended
from tests.references import Array, Gradients, Trajectory, change_gradient, decay_term, look_ahead, norm


class Modern(extended.Extended):
    """One parameter, and what an optimizer with further components remembers about it."""

    def __init__(self, param: Array) -> None:
        super().__init__(param)
        self.gradient = np.zeros_like(self.theta)
        self.gradient_before = np.zeros_like(self.theta)
        self.momentum = np.zeros_like(self.theta)
        self.squares = np.zeros_like(self.theta)
        self.slow_momentum = np.zeros_like(self.theta)
        self.base = self.theta.copy()
        self.average = self.theta.copy()
        self.squared_rates = 0.0
        self.of_neurons = 0.0
        self.is_matrix = self.theta.ndim > 1 and self.theta[0].size > 1


def trajectory(config: Config, params: Sequence[Array], grads: Gradients, total_steps: int | None) -> list[Array]:
    """AdamW and any components that go together."""
    on = config.components
    memories = [Modern(p) for p in params]
    for t, step_grads in enumerate(grads, start=1):
        part = rate(config, t, total_steps)
        eta = config.lr * part
        beta1 = extended.momentum(config, t, total_steps)
        present = [(memory, g) for memory, g in zip(memories, step_grads, strict=True) if g is not None]
        length = math.sqrt(sum(float(np.sum(g**2)) for _, g in present))
        for memory, g in present:
            memory.updates += 1
            if "global_norm_clipping" in on and length > on["global_norm_clipping"]["max_norm"]:
                g = g * on["global_norm_clipping"]["max_norm"] / length
            g = extended.normalize(config, change_gradient(config, memory.theta, g))
            g = extended.regularize(config, memory.theta, reduce_variance(config, memory, g, beta1))
            extended.second_moment(config, memory, g, beta1)
            memory.gradient = g
            memory.direction = direction(config, memory, g, beta1, eta, t, total_steps)
            memory.direction = cautious(config, g, normalize_neurons(config, memory))
        numbers = sum(memory.v_hat.size for memory, _ in present)
        mean_of_all = sum(np.sum(memory.v_hat) for memory, _ in present) / max(numbers, 1)
        for memory, _ in present:
            descend(config, memory, eta, part, decay(config, memory, mean_of_all, eta, part), beta1)
            look_ahead(config, memory)
            average(config, memory)
    return [memory.average if averages(config) else memory.theta for memory in memories]


def averages(config: Config) -> bool:
    """Whether an average is what to evaluate with."""
    return not {"schedule_free", "weight_average"}.isdisjoint(config.components)


def average(config: Config, memory: Modern) -> None:
    """The exponential average of tf.train.ExponentialMovingAverage(decay, num_updates)."""
    if "weight_average" in config.components:
        t = memory.updates
        d = min(config.components["weight_average"]["decay"], (1 + t) / (10 + t))
        memory.average = d * memory.average + (1 - d) * memory.theta


def rate(config: Config, t: int, total_steps: int | None) -> float:
    """The factor on the learning rate: the smallest one of the schedules, times the Chebyshev step."""
    on, factors = config.components, [1.0]
    if "power_cooldown" in on:
        left = max(0.0, (total_steps - t) / (on["power_cooldown"]["fraction"] * total_steps))
        factors.append(min(1.0, left) ** on["power_cooldown"]["power"])
    if "square_root_cooldown" in on:  # 2405.18392: 1 − √((n − N + N_decay)/N_decay)
        left = max(0.0, (total_steps - t) / (on["square_root_cooldown"]["fraction"] * total_steps))
        factors.append(1 - math.sqrt(1 - left) if left < 1 else 1.0)
    chebyshev = extended.chebyshev(config, t, total_steps) if "chebyshev_steps" in on else 1.0
    return min(*factors, extended.factor(config, t, total_steps) / chebyshev) * chebyshev


def reduce_variance(config: Config, memory: Modern, g: Array, beta1: float) -> Array:
    """MARS-approx (2411.10438), for matrices."""
    if "mars" not in config.components or not memory.is_matrix:
        return g
    c = g + config.components["mars"]["gamma"] * beta1 / (1 - beta1) * (g - memory.gradient_before)
    memory.gradient_before = g
    return c / norm(c) if norm(c) > 1 else c


def direction(
    config: Config, memory: Modern, g: Array, beta1: float, eta: float, t: int, total_steps: int | None
) -> Array:
    """What is subtracted η times, before decay."""
    on, beta2, n = config.components, config.betas[1], memory.updates
    if "lion" in on:  # 2302.06675
        update = np.sign(beta1 * memory.momentum + (1 - beta1) * g)
        memory.momentum = on["lion"]["beta2"] * memory.momentum + (1 - on["lion"]["beta2"]) * g
        return update
    if "signum" in on:  # 1802.04434
        memory.momentum = beta1 * memory.momentum + (1 - beta1) * g
        return np.sign(memory.momentum)
    if "adopt" in on:  # 2411.02853
        if n == 1:
            memory.squares = g**2
            return np.zeros_like(g)
        limit = (n - 1) ** on["adopt"]["exponent"]
        scaled = np.clip(g / np.maximum(np.sqrt(memory.squares), config.eps), -limit, limit)
        memory.momentum = beta1 * memory.momentum + (1 - beta1) * scaled
        memory.squares = beta2 * memory.squares + (1 - beta2) * g**2
        return memory.momentum
    if "muon" in on and memory.is_matrix:  # 2502.16982
        mu, rows, columns = on["muon"]["momentum"], len(g), g.size // len(g)
        memory.momentum = mu * memory.momentum + (1 - mu) * g
        ahead = ((1 - mu) * g + mu * memory.momentum).reshape(rows, columns)
        scale = 0.2 * math.sqrt(max(rows, columns))
        if on["muon"]["scale"] == "original":
            scale = math.sqrt(max(1, rows / columns))
        return scale * orthogonalized(ahead).reshape(g.shape)
    if "soap" in on:  # 2409.11321
        return in_eigenbasis(config, memory, g, beta1)
    if "laprop" in on:  # 2002.04839
        memory.momentum = beta1 * memory.momentum + (1 - beta1) * g / extended.denominator(config, memory)
        return memory.momentum / (1 - beta1**n)
    if "nesterov" in on:
        m_hat = (beta1 * memory.m + (1 - beta1) * g) / (1 - beta1**n)
        return m_hat / extended.denominator(config, memory)
    if "ademamix" in on:  # 2409.03137, with T_α = T_β3 = T
        done, beta3 = min(t / total_steps, 1.0), on["ademamix"]["beta3"]
        log1, log3 = math.log(beta1), math.log(beta3)
        beta3 = min(math.exp(log1 * log3 / ((1 - done) * log3 + done * log1)), beta3)
        memory.slow_momentum = beta3 * memory.slow_momentum + (1 - beta3) * g
        m_hat = memory.m / (1 - beta1**n) + done * on["ademamix"]["alpha"] * memory.slow_momentum
        return m_hat / extended.denominator(config, memory)
    return extended.direction(config, memory, g, beta1, eta, t)


def in_eigenbasis(config: Config, memory: Modern, g: Array, beta1: float) -> Array:
    """SOAP (2409.11321, algorithm 3, and the authors' code, which begins with an update that moves nothing)."""
    beta2, t = config.betas[1], memory.updates - 1
    x = g.reshape(len(g), -1) if memory.is_matrix else g.reshape(1, -1)
    rows, columns = x.shape
    sides = [x, x.T] if memory.is_matrix else []
    lengths = [n <= 1024 or n <= min(10_000, 16 * other) for n, other in ((rows, columns), (columns, rows))]
    sides = [side if turned else None for side, turned in zip(sides, lengths, strict=False)]
    if t == 0:
        memory.covariances = [None if s is None else (1 - beta2) * s @ s.T for s in sides]
        memory.bases = [None if c is None else eigenvectors(c) for c in memory.covariances]
        memory.turned_m, memory.turned_v = np.zeros_like(x), np.zeros_like(x)
        return np.zeros_like(g)
    turned = into(x, memory.bases)
    memory.turned_m = beta1 * memory.turned_m + (1 - beta1) * turned
    memory.turned_v = beta2 * memory.turned_v + (1 - beta2) * turned**2
    found = back(memory.turned_m / (np.sqrt(memory.turned_v) + config.eps), memory.bases)
    memory.covariances = [
        None if s is None else beta2 * c + (1 - beta2) * s @ s.T for c, s in zip(memory.covariances, sides, strict=True)
    ]
    if t % config.components["soap"]["every"] == 0:
        m = back(memory.turned_m, memory.bases)
        for axis, (c, q) in enumerate(zip(memory.covariances, memory.bases, strict=True)):
            if q is not None:
                order = np.argsort(-np.diag(q.T @ c @ q))
                memory.turned_v = memory.turned_v.take(order, axis)
                memory.bases[axis] = np.linalg.qr(c @ q[:, order])[0]
        memory.turned_m = into(m, memory.bases)
    return found.reshape(g.shape) * math.sqrt(1 - beta2**t) / (1 - beta1**t)


def into(x: Array, bases: list[Array | None]) -> Array:
    """A matrix in bases of its rows and columns; those that are missing are as they are."""
    for axis, q in enumerate(bases):
        if q is not None:
            x = q.T @ x if axis == 0 else x @ q
    return x


def back(x: Array, bases: list[Array | None]) -> Array:
    """The inverse of `into`."""
    return into(x, [None if q is None else q.T for q in bases])


def eigenvectors(x: Array) -> Array:
    """Those of large eigenvalues first; for eigenvalues of zero what completes an orthogonal matrix."""
    values, vectors = np.linalg.eigh(x)
    rank = int((values > len(x) * np.finfo(float).eps * values[-1]).sum())
    return np.linalg.qr(vectors[:, ::-1][:, :rank], mode="complete")[0]


def orthogonalized(x: Array) -> Array:
    """Keller Jordan's five iterations of Newton and Schulz."""
    y = (x.T if len(x) > len(x.T) else x) / max(norm(x), 1e-7)
    for _ in range(5):
        gram = y @ y.T
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
    return y.T if len(x) > len(x.T) else y


def normalize_neurons(config: Config, memory: Modern) -> Array:
    """NorMuon (2510.05491) from the orthogonalized momentum on; the norm is kept, as in the authors' code."""
    if "neuron_normalization" not in config.components or not memory.is_matrix:
        return memory.direction
    beta, u = config.components["neuron_normalization"]["beta2"], memory.direction.reshape(len(memory.theta), -1)
    memory.of_neurons = beta * memory.of_neurons + (1 - beta) * np.mean(u**2, axis=1)
    normalized = u / (np.sqrt(memory.of_neurons) + 1e-10)[:, None]
    if norm(normalized) > 0:
        normalized = normalized * norm(u) / norm(normalized)
    return normalized.reshape(memory.theta.shape)


def cautious(config: Config, g: Array, update: Array) -> Array:
    """The mask of cautious optimizers (2411.16085), scaled as in the authors' code."""
    if "cautious_mask" not in config.components:
        return update
    agree = [1.0 if u * d > 0 else 0.0 for u, d in zip(update.flat, g.flat, strict=True)]
    return update * np.reshape(agree, update.shape) / max(sum(agree) / len(agree), 1e-3)


def decay(config: Config, memory: Modern, mean_of_all: float, eta: float, part: float) -> Array:
    """What λ multiplies."""
    on = config.components
    if {"l2_decay", "lars_trust_ratio", "hyperball"} & on.keys() or extended.resting(config, memory):
        return np.zeros_like(memory.theta)
    if {"adopt", "soap"} & on.keys() and memory.updates == 1:
        return np.zeros_like(memory.theta)
    term = decay_term(config, memory, mean_of_all, eta)
    if "cautious_weight_decay" in on:  # 2510.12402
        term = term * (memory.direction * memory.theta >= 0)
    if "corrected_weight_decay" in on:  # 2506.02285: λ·γ_t/γ_max
        term = term * part
    return term


def descend(config: Config, memory: Modern, eta: float, part: float, term: Array, beta1: float) -> None:
    """The step of the weights."""
    if "schedule_free" in config.components:  # 2405.15682, algorithm 1
        own = config.components["schedule_free"]
        gamma = eta * min(1.0, memory.updates / own["warmup"]) if own["warmup"] else eta
        weight = min(1.0, memory.updates / own["warmup"]) ** 2 if own["warmup"] else 1.0
        memory.squared_rates += weight
        update = memory.gradient / extended.denominator(config, memory) + config.weight_decay * term
        memory.base = memory.base - gamma * update
        c = weight / memory.squared_rates
        memory.average = (1 - c) * memory.average + c * memory.base
        memory.theta[...] = (1 - own["beta"]) * memory.base + own["beta"] * memory.average
        return
    if "hyperball" in config.components:
        radius, length = norm(memory.theta), norm(memory.direction)
        if not memory.is_matrix or radius == 0 or length == 0:
            memory.theta -= eta * memory.direction
            if not memory.is_matrix or radius == 0:
                return
        else:
            memory.theta -= eta * radius * memory.direction / length
        memory.theta *= radius / norm(memory.theta)
        return
    update = memory.direction + config.weight_decay * term
    update = update * extended.trust(config, memory, update, beta1)
    if "update_clipping" in config.components:  # 2304.13013
        expected = np.maximum(memory.v_hat, config.eps**2)
        update = update / max(1.0, math.sqrt(np.mean(memory.gradient**2 / expected)))
    memory.theta -= eta * update


REFERENCES_MODERN: dict[str, Trajectory] = dict.fromkeys(
    (
        "ademamix",
        "adopt",
        "cautious_mask",
        "cautious_weight_decay",
        "corrected_weight_decay",
        "hyperball",
        "laprop",
        "lion",
        "mars",
        "muon",
        "nesterov",
        "neuron_normalization",
        "power_cooldown",
        "schedule_free",
        "signum",
        "soap",
        "square_root_cooldown",
        "update_clipping",
        "weight_average",
    ),
    trajectory,
)

"""AdEMAMix: Pagliardini et al. 2024, arXiv 2409.03137, algorithm 1."""

from __future__ import annotations

import torch

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class Ademamix(Component):
    """Add to the first moment `alpha` times a second one, which remembers far older gradients.

    n ← β3·n + (1 − β3)·g, m̂ = m/(1 − β1^t) + α·n: n's bias is not corrected. In the course of training α rises
    linearly from 0 to `alpha`, and β3 from β1 to `beta3` so that its half-life rises linearly, as the authors schedule
    them. The numbers are those of the paper's language models; the authors' code has `alpha` 2 unless told otherwise.
    """

    stage = Stage.MOMENTUM
    source = "arXiv 2409.03137"
    beta3 = Hyper(0.9999, low=0.99, high=0.9999, minimum=0.5, maximum=0.999999)
    alpha = Hyper(8.0, low=1.0, high=10.0)
    state = {"slow": torch.zeros_like}
    replaces = frozenset({Role.FIRST_MOMENT})
    needs = frozenset({Role.FIRST_MOMENT})
    needs_total_steps = True

    def forward(self, x: Signals) -> Signals:
        progress = torch.clamp(x.step / x.total, max=1)
        # Written with the numbers 1/ln β, which are interpolated; β1 may be 0, whose logarithm is none.
        first, last = x.beta1.clamp(min=1e-9).log(), self.beta3.log()
        beta3 = torch.minimum(torch.exp(first * last / (last + progress * (first - last))), self.beta3)
        slow = torch.lerp(x.state["slow"], x.grad, 1 - beta3)
        unbiased = 1 - x.beta1**x.updates  # by which `mean_hat` divides
        return x._replace(mean=x.mean + slow * (self.alpha * progress * unbiased), state={"slow": slow})

"""An exponential average of the weights, as tf.train.ExponentialMovingAverage(decay, num_updates) has it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autoranger.components.core.component import Component, Hyper, Role, Signals, Stage


class WeightAverage(Component):
    """Evaluate with an exponential average of the weights, and train on without it.

    a ← d·a + (1 − d)·θ after every update, with d = min(`decay`, (1 + t)/(10 + t)), so that early weights are soon
    forgotten: the average begins with the weights before the first update. `optimizer.eval()` puts a in the place of θ.
    Where other weights are loaded, the average begins anew from them.
    """

    stage = Stage.WEIGHTS
    source = "https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage"
    decay = Hyper(0.999, low=0.9, high=0.9999, maximum=1.0)
    state = {"average": torch.clone}
    replaces = frozenset({Role.EVALUATION})

    def forward(self, x: Signals) -> Signals:
        decay = torch.minimum((1 + x.updates) / (10 + x.updates), self.decay)
        return x._replace(state={"average": torch.lerp(x.state["average"], x.theta, 1 - decay)})

    def evaluated(self, theta: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return state["average"]

"""A task to search an optimizer for: data, a small model, a loss and a metric.

Run it with `autoranger search --task THIS_FILE:MyTask`. To make it yours, begin with `data` and `model`; what is not
needed below can be left out.
"""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from torch import Tensor, nn

from autoranger import Task


class MyTask(Task):
    """Digits, by a small network."""

    name = "my_task"
    metric_name = "F1"
    batch_size = 64
    steps = 200  # of a training in the search: as many as you can afford, since short ones favour other optimizers
    resplit = True  # each seed divides training and validation data anew; False where examples depend on each other
    lr_range = (1e-3, 1e-1)  # to begin with; the search goes on beyond it if the best rate lies on an edge

    def data(self) -> dict[str, Any]:
        """Inputs and targets for training, validation and test: tensors, arrays, a data set, or its loader."""
        images, labels = load_digits(return_X_y=True)
        inputs, targets = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
        return {
            "train": (inputs[:1000], targets[:1000]),
            "valid": (inputs[1000:1400], targets[1000:1400]),
            "test": (inputs[1400:], targets[1400:]),
        }

    def model(self, scale: float = 1.0) -> nn.Module:
        """A new model in every call, smaller than the real one. Only `autoranger transfer` asks for wider ones."""
        width = round(32 * scale)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The training loss of a batch."""
        return nn.functional.cross_entropy(output, target)

    def metric(self, output: Tensor, target: Tensor) -> float:
        """What to improve, for all outputs of a split at once; for a loss, set `direction = "minimize"` above."""
        return float(f1_score(target.cpu(), output.argmax(dim=1).cpu(), average="macro"))

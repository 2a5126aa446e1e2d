"""`diabetes`: a regression on 442 patients. Ships with scikit-learn, so it works offline."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autoranger.search.tasks.task import Split, Task, averages, scaled


class Diabetes(Task):
    """442 patients, of which 266 train, 88 validate and 88 test: progression of the disease from ten measurements.

    The target is standardized with the mean and variance of the 266. The metric is the mean squared error's skill
    score: 0 for predicting that mean, 1 for a perfect prediction. It is R² with these as reference; R² proper has each
    split's own variance in it and would not average over batches. Seeds divide the 354 that do not test anew.
    """

    name = "diabetes"
    summary = "disease progression of 442 patients, a perceptron 10-32-32-1, regression; offline"
    source = "Efron et al. 2004, as distributed with scikit-learn (BSD-3-Clause)"
    metric_name = "skill score"
    steps = 200
    resplit = True
    lr_range = (3e-4, 3e-2)

    def data(self) -> Mapping[str, Split]:
        from sklearn.datasets import load_diabetes
        from sklearn.model_selection import train_test_split

        inputs, targets = (torch.as_tensor(x, dtype=torch.float32) for x in load_diabetes(return_X_y=True))
        rest, test = train_test_split(range(len(targets)), test_size=88, random_state=0)
        train, valid = train_test_split(rest, test_size=88, random_state=0)
        inputs = standardize(inputs, inputs[train])
        targets = standardize(targets, targets[train])
        return {name: (inputs[p], targets[p]) for name, p in {"train": train, "valid": valid, "test": test}.items()}

    def model(self, scale: float = 1.0) -> nn.Module:
        width = scaled(32, scale)
        hidden = nn.Linear(10, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        return nn.Sequential(*hidden, nn.Linear(width, 1), nn.Flatten(0))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error."""
        return (output - target).square().mean()

    @averages
    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """1 − mean squared error / variance of the reference, which is 1."""
        return 1 - (output - target).square().mean()


def standardize(x: Tensor, reference: Tensor) -> Tensor:
    """`x` with the mean and the variance of `reference` taken out, column by column."""
    return (x - reference.mean(dim=0)) / reference.std(dim=0, correction=0)

"""`digits`: 8×8 handwritten digits and a small perceptron. Ships with scikit-learn, so it works offline."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from autoranger.search.tasks.task import Split, Task, scaled


class Digits(Task):
    """1,797 images, of which 1,077 train, 360 validate and 360 test (stratified)."""

    name = "digits"
    summary = "8×8 handwritten digits, a perceptron 64-32-10; offline"
    source = "scikit-learn's copy of the UCI optical digits (CC BY 4.0)"
    resplit = True
    lr_range = (3e-3, 3e-1)
    survivors = 1 / 4

    def data(self) -> Mapping[str, Split]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        inputs = torch.as_tensor(images, dtype=torch.float32) / 8 - 1
        targets = torch.as_tensor(labels, dtype=torch.int64)
        rest, test = train_test_split(range(len(labels)), test_size=360, stratify=labels, random_state=0)
        train, valid = train_test_split(rest, test_size=360, stratify=labels[rest], random_state=0)
        parts = {"train": train, "valid": valid, "test": test}
        return {name: (inputs[part], targets[part]) for name, part in parts.items()}

    def model(self, scale: float = 1.0) -> nn.Module:
        width = scaled(32, scale)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

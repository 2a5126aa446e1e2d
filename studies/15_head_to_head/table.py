"""Tabular regression with heavy tails: Friedman's first function, a perceptron, R²."""

import numpy as np
import torch
from sklearn.datasets import make_friedman1
from sklearn.metrics import r2_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autoranger

EPOCHS = 20

inputs, targets = make_friedman1(2400, n_features=12, random_state=0)
targets = targets + np.random.default_rng(0).standard_t(2, 2400)
x = torch.tensor(inputs, dtype=torch.float32)
y = torch.tensor((targets - targets[:800].mean()) / targets[:800].std(), dtype=torch.float32)


def train(trial):
    loader = DataLoader(TensorDataset(x[:800], y[:800]), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(12, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    epochs = max(1, round(EPOCHS * trial.length))
    optimizer = trial.build(model, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for a, b in loader:
            optimizer.zero_grad()
            nn.functional.smooth_l1_loss(model(a).squeeze(1), b).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        predicted = model(x).squeeze(1)
    valid, test = r2_score(y[800:1600], predicted[800:1600]), r2_score(y[1600:], predicted[1600:])
    return {"R²": valid, "test": test}


if __name__ == "__main__":
    autoranger.tune(train, budget="10m", out="table.toml")

"""A training whose optimizer is tuned: digits, a small network, early stopping on the F1 score.

Run it with `autoranger tune THIS_FILE:train --budget 5m`, or as a script. To make it yours, change all but the lines
with `trial` in them.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import autoranger

EPOCHS = 12
PATIENCE = 4


def data() -> tuple[TensorDataset, TensorDataset]:
    """Training and validation data."""
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    # Another division for each seed: with one for all a search finds what suits just these few examples.
    order = torch.randperm(len(targets))
    fitting, validation = order[:1200], order[1200:]
    return TensorDataset(inputs[fitting], targets[fitting]), TensorDataset(inputs[validation], targets[validation])


def train(trial: autoranger.Trial) -> float:
    """Trains once. torch, NumPy and Python have been seeded with `trial.seed` before this is called."""
    fitting, validation = data()
    loader = DataLoader(fitting, batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    # The share of the full length to train for. Leave it out if trainings cannot be shortened.
    epochs = max(1, round(EPOCHS * trial.length))
    # Instead of torch.optim.AdamW(model.parameters()). Schedules are part of it: no lr_scheduler.
    optimizer = trial.build(model, total_steps=epochs * len(loader))
    best, waited = 0.0, 0
    for epoch in range(epochs):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
        with optimizer.evaluation():  # some candidates evaluate an average of their weights
            score = evaluate(model, *validation.tensors)
        # Optional: it is recorded with the trial. NaN ends the training.
        trial.report(score, epoch)
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited == PATIENCE:
            break
    # What to improve. A dict returns more than one number: `{"f1": best, "loss": …, "test": …}`.
    return best


@torch.no_grad()
def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The mean F1 score of the classes."""
    model.eval()
    return float(f1_score(targets, model(inputs).argmax(dim=1), average="macro"))


if __name__ == "__main__":  # workers import this file, too
    autoranger.tune(train, budget="5m", metric="f1", out="tuned.toml")
    # Then, in the real training:
    # optimizer = autoranger.load("tuned.toml").build(model.parameters(), total_steps=epochs * len(loader))

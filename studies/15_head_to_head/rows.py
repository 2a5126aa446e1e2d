"""A recurrent classifier of handwritten digits, read row by row: F1 score, class weights, early stopping."""

import copy

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autoranger

EPOCHS, PATIENCE = 12, 4

images, labels = load_digits(return_X_y=True)
rows = torch.tensor(images, dtype=torch.float32).reshape(-1, 8, 8) / 16
labels = torch.tensor(labels)
keep = (labels < 5) | (torch.arange(len(labels)) % 4 == 0)  # five rare classes
rows, labels = rows[keep], labels[keep]
train_x, other_x, train_y, other_y = train_test_split(rows, labels, test_size=0.5, random_state=0, stratify=labels)
valid_x, test_x, valid_y, test_y = train_test_split(other_x, other_y, test_size=0.5, random_state=0, stratify=other_y)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 24, batch_first=True)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        return self.head(self.gru(x)[1][-1])


@torch.no_grad()
def f1(model, x, y):
    model.eval()
    return f1_score(y, model(x).argmax(1), average="macro")


def train(trial):
    loader = DataLoader(TensorDataset(train_x, train_y), batch_size=32, shuffle=True)
    model = Reader()
    loss_function = nn.CrossEntropyLoss(weight=1 / train_y.bincount().float().sqrt())
    epochs = max(1, round(EPOCHS * trial.length))
    optimizer = trial.build(model, total_steps=epochs * len(loader))
    best, waited, weights = 0.0, 0, None
    for epoch in range(epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss_function(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        score = f1(model, valid_x, valid_y)
        trial.report(score, epoch)
        if score > best:
            best, waited, weights = score, 0, copy.deepcopy(model.state_dict())
        else:
            waited += 1
        if waited == PATIENCE:
            break
    model.load_state_dict(weights)
    return {"F1": best, "test": f1(model, test_x, test_y)}


if __name__ == "__main__":
    autoranger.tune(train, budget="10m", out="rows.toml")

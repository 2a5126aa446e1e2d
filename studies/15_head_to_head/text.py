"""A small language model of characters of Python's own documentation, with a DataLoader and a schedule."""

import math
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import autoranger

STEPS, CONTEXT, WIDTH = 240, 32, 48

text = "\n".join(topics[name] for name in sorted(topics))
characters = sorted(set(text))
codes = torch.tensor([characters.index(c) for c in text[:400_000]])
parts = {"train": codes[:320_000], "valid": codes[320_000:360_000], "test": codes[360_000:]}


class Windows(Dataset):
    def __init__(self, codes):
        self.codes = codes

    def __len__(self):
        return len(self.codes) // CONTEXT - 1

    def __getitem__(self, i):
        window = self.codes[i * CONTEXT : (i + 1) * CONTEXT + 1]
        return {"input_ids": window[:-1], "labels": window[1:]}


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(len(characters), WIDTH)
        self.position = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, len(characters))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, input_ids):
        x = self.embed(input_ids) + self.position
        return self.head(self.blocks(x, mask=self.mask, is_causal=True))


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch["input_ids"]).flatten(0, 1), batch["labels"].flatten())


@torch.no_grad()
def perplexity(model, part):
    model.eval()
    losses = [loss_of(model, batch) for batch in DataLoader(Windows(parts[part][:8000]), batch_size=128)]
    return math.exp(sum(losses) / len(losses))


def train(trial):
    loader = DataLoader(Windows(parts["train"]), batch_size=16, shuffle=True)
    model = LanguageModel()
    steps = max(1, round(STEPS * trial.length))
    optimizer = trial.build(model, total_steps=steps)
    step = 0
    while step < steps:
        for batch in loader:
            model.train()
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
            step += 1
            if step % 60 == 0:
                trial.report(perplexity(model, "valid"), step)
            if step == steps:
                break
    return {"perplexity": perplexity(model, "valid"), "test": perplexity(model, "test")}


if __name__ == "__main__":
    autoranger.tune(train, budget="10m", direction="minimize", out="text.toml")

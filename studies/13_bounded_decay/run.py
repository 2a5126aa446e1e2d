"""Which bound keeps stable weight decay from exploding where a gradient is only rounding, and costs nothing elsewhere?

usage: python studies/13_bounded_decay/run.py --data-dir DIR [--tasks bert gpt …]

Small nets of the kinds that explode train for 200 steps at three learning rates with three seeds: a BERT with unused
rows in its embedding, a GPT, a ViT, and nets with batch normalization after biases, with weights as Hugging Face
initializes them. All candidates train at once: AdamW, full Ranger21 without stable weight decay ("none"), and with each
candidate of `candidates.py` in its place. What counts: the validation loss, and the largest parameter in units of
AdamW's largest. Writes record.json, task by task, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from candidates import CANDIDATES, config
from torch import Tensor, nn
from torch.nn import functional

from autoranger.search.population import Population
from autoranger.search.population.chunk import Chunk
from autoranger.search.population.memory import keep_freed_memory
from autoranger.search.tasks import find
from autoranger.search.tasks.shakespeare import Shakespeare
from autoranger.search.tasks.task import Task

HERE = Path(__file__).parent
NAMES = ("adamw", "none", *(c.id for c in CANDIDATES))
RATES = (1e-3, 3e-3, 1e-2)
SEEDS = (0, 1, 2)
STEPS = 200
WIDTH = 32


class Attention(nn.Module):
    """With biases for queries, keys and values, of which that of the keys has no effect."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.queries, self.keys, self.values, self.merge = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.queries, self.keys, self.values))
        scores = q @ k.mT * (WIDTH // 4) ** -0.5
        if self.causal:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
        return self.merge((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a perceptron, normalized before (GPT-2, ViT) or after (BERT)."""

    def __init__(self, *, causal: bool = False, after: bool = False) -> None:
        super().__init__()
        self.after, self.attention = after, Attention(causal)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])

    def forward(self, x: Tensor) -> Tensor:
        for part, norm in zip((self.attention, self.perceptron), self.norms, strict=True):
            x = norm(x + part(x)) if self.after else x + part(norm(x))
        return x


class Text(nn.Module):
    """A BERT or a GPT, whose embedding is its head, too."""

    def __init__(self, rows: int, context: int, *, causal: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(rows, WIDTH), nn.Embedding(context, WIDTH)
        self.blocks = nn.Sequential(*(Block(causal=causal, after=not causal) for _ in range(2)))
        self.norm, self.bias = nn.LayerNorm(WIDTH), nn.Parameter(torch.zeros(rows))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.words(x) + self.places.weight)) @ self.words.weight.T + self.bias


class Vit(nn.Module):
    """Patches of 2×2 of pictures of 8×8."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.places = nn.Conv2d(1, WIDTH, 2, 2), nn.Parameter(0.02 * torch.randn(1, 16, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x.view(-1, 1, 8, 8)).flatten(2).mT + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


def initialize(net: nn.Module) -> None:
    """As transformers does: small weights, no biases."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Embedding | nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.02)
        if isinstance(layer, nn.Linear | nn.Conv2d):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*convolution(width, width), *convolution(width, width)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.branch(x))


class Pictures(Task):
    """The digits, for a net of pictures."""

    def data(self):
        return find("digits")().data()


class VitTask(Pictures):
    name = "vit"

    def model(self) -> nn.Module:
        return Vit()


class BatchNormTask(Pictures):
    name = "batchnorm"

    def model(self) -> nn.Module:
        layers = [*convolution(1, 8), *convolution(8, 8), nn.MaxPool2d(2), *convolution(8, 16), *convolution(16, 16)]
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        )


class ResnetTask(Pictures):
    name = "resnet"

    def model(self) -> nn.Module:
        layers = [*convolution(1, 8), Residual(8), nn.MaxPool2d(2), *convolution(8, 16), Residual(16)]
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        )


class GptTask(Shakespeare):
    name = "gpt"

    def model(self) -> nn.Module:
        return Text(65, self.context, causal=True)


class BertTask(Shakespeare):
    """Characters of which some are hidden have to be found; the embedding has a thousand rows."""

    name = "bert"

    def data(self):
        found = {}
        for name, (x, _) in super().data().items():
            hidden = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.15
            found[name] = x.where(~hidden, 65), x.where(hidden, -1)
        return found

    def model(self) -> nn.Module:
        return Text(1000, self.context, causal=False)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        counts = target >= 0
        scores = output.log_softmax(-1).gather(-1, target.clamp(min=0)[..., None])[..., 0]
        return -(scores * counts).sum() / counts.sum().clamp(min=1)


NETS = {kind.name: kind for kind in (BertTask, GptTask, VitTask, ResnetTask, BatchNormTask)}


def train(task: Task) -> list[dict[str, object]]:
    """Every candidate at every rate with every seed: one record each, of its seeds."""
    task.batch_size, task.metric = min(task.batch_size, 32), task.loss  # type: ignore[method-assign]
    population = Population(task)
    records = []
    for lr in RATES:
        chunk = Chunk(population, [config(name, lr) for name in NAMES], SEEDS, STEPS)
        for inputs, targets in population._batches(SEEDS, STEPS):
            chunk.advance(inputs, targets)
            chunk.poll()
        losses = chunk.score(population.data["valid"])
        largest = torch.stack([t.abs().flatten(1).amax(1) for t in chunk.thetas]).nan_to_num(torch.inf).amax(0)
        for name, loss, most in zip(NAMES, losses, largest.view(len(NAMES), -1), strict=True):
            print(f"{task.name} {lr:g} {name:16} {loss.round(3)} {[f'{x:.3g}' for x in most.tolist()]}", flush=True)
            records.append(
                {"task": task.name, "lr": lr, "rule": name, "losses": loss.tolist(), "largest": most.tolist()}
            )
    return records


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where tiny Shakespeare is")
    parser.add_argument("--tasks", nargs="+", default=list(NETS), choices=NETS)
    parser.add_argument("--record", type=Path, default=HERE / "record.json")
    given = parser.parse_args()
    runs = json.loads(given.record.read_text())["runs"] if given.record.exists() else []
    for name in given.tasks:
        if not any(run["task"] == name for run in runs):
            runs += train(NETS[name](data_dir=given.data_dir))
            given.record.write_text(json.dumps({"runs": runs}, indent=1))


if __name__ == "__main__":
    main()

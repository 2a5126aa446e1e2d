"""Does full Ranger21 train what people have, at its defaults: BERT, GPT-2, ViT and ResNet of Hugging Face?

usage: python studies/13_bounded_decay/transformers_nets.py --text FILE [--models bert gpt2 …] [--seeds N]

Small ones, made from configs, and a net with batch normalization after biases train for 200 steps at three learning
rates, with AdamW, with full Ranger21, with that without stable weight decay ("none") and with the paper's literal rule.
What counts: the mean loss of the last 20 steps, and the largest parameter in units of AdamW's largest. Needs
transformers. Writes transformers_nets.json, run by run, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from candidates import config
from sklearn.datasets import load_digits
from torch import Tensor, nn

HERE = Path(__file__).parent
RATES = (1e-3, 3e-3, 1e-2)
STEPS = 200
LAST = 20


Batch = Callable[[torch.Generator], Tensor]
"""Draws a batch, and gives the loss on it."""


def bert(text: Tensor, vocabulary: int = 65) -> tuple[nn.Module, Batch]:
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    net = BertForMaskedLM(BertConfig(vocab_size=vocabulary + 1, max_position_embeddings=64, **sizes))

    def loss(generator: torch.Generator) -> Tensor:
        x = windows(text, generator)
        hidden = torch.rand(x.shape, generator=generator) < 0.15
        return net(input_ids=x.where(~hidden, vocabulary), labels=x.where(hidden, -100)).loss

    return net, loss


def bert_unused(text: Tensor) -> tuple[nn.Module, Batch]:
    return bert(text, 3000)


def gpt2(text: Tensor) -> tuple[nn.Module, Batch]:
    from transformers import GPT2Config, GPT2LMHeadModel

    net = GPT2LMHeadModel(GPT2Config(vocab_size=65, n_positions=64, n_embd=32, n_layer=2, n_head=4))

    def loss(generator: torch.Generator) -> Tensor:
        x = windows(text, generator)
        return net(input_ids=x, labels=x).loss

    return net, loss


def windows(text: Tensor, generator: torch.Generator) -> Tensor:
    starts = torch.randint(len(text) - 24, (8, 1), generator=generator)
    return text[starts + torch.arange(24)]


def pictures() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)


def classified(net: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
    images, labels = pictures()
    chosen = torch.randint(len(images), (32,), generator=generator)
    return nn.functional.cross_entropy(net(images[chosen]), labels[chosen])


def vit(text: Tensor) -> tuple[nn.Module, Batch]:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    net = ViTForImageClassification(ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **sizes))
    return net, lambda generator: classified(lambda x: net(pixel_values=x).logits, generator)


def resnet(text: Tensor) -> tuple[nn.Module, Batch]:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]}
    net = ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=10, **sizes))
    grown = nn.Upsample(scale_factor=2)
    return net, lambda generator: classified(lambda x: net(pixel_values=grown(x)).logits, generator)


def batchnorm(text: Tensor) -> tuple[nn.Module, Batch]:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    layers = [*block(1, 8), *block(8, 8), nn.MaxPool2d(2), *block(8, 16), *block(16, 16)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return net, lambda generator: classified(net, generator)


MODELS = {f.__name__: f for f in (bert, bert_unused, gpt2, vit, resnet, batchnorm)}


def train(name: str, model: str, lr: float, seed: int, text: Tensor) -> dict[str, Any]:
    """One training; its record."""
    torch.manual_seed(seed)
    net, loss_of = MODELS[model](text)
    net.train()
    optimizer = config(name, lr).build(net.parameters(), STEPS)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(STEPS):
        loss = loss_of(generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    largest = {key: p.abs().max().item() for key, p in net.named_parameters()}
    where = max(largest, key=lambda key: largest[key] if largest[key] == largest[key] else float("inf"))
    return {"loss": sum(losses[-LAST:]) / LAST, "largest": largest[where], "where": where}


def wanted(models: Sequence[str], seeds: int) -> Iterator[tuple[str, str, float, int]]:
    names = ["adamw", "none", "literal", "ranger21"]
    return ((n, m, lr, s) for s in range(seeds) for m in models for lr in RATES for n in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="tiny Shakespeare, or any other text")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--record", type=Path, default=HERE / "transformers_nets.json")
    given = parser.parse_args()
    characters = given.text.read_text()
    index = {c: i for i, c in enumerate(sorted(set(characters)))}
    text = torch.tensor([index[c] for c in characters])
    record = json.loads(given.record.read_text()) if given.record.exists() else {"runs": []}
    done = {(r["optimizer"], r["model"], r["lr"], r["seed"]) for r in record["runs"]}
    for name, model, lr, seed in wanted(given.models, given.seeds):
        if (name, model, lr, seed) not in done:
            run = {"optimizer": name, "model": model, "lr": lr, "seed": seed, **train(name, model, lr, seed, text)}
            record["runs"].append(run)
            given.record.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

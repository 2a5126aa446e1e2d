"""What does state in bfloat16 cost in accuracy and in time? See README.md."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median, stdev
from unittest import mock

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autoranger import Config
from autoranger.components.core import stack

HERE = Path(__file__).parent
SEEDS, STEPS = range(8), 300


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def convolutions() -> nn.Module:
    layers = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()
    return nn.Sequential(nn.Unflatten(1, (1, 8)), *layers, nn.Flatten(), nn.Linear(32 * 36, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {"MLP": mlp, "convolutions": convolutions}
CONFIGS = {"adamw": Config.preset("adamw", lr=3e-3), "ranger21": Config.preset("ranger21", lr=1e-2)}


def shaped(model: Callable[[], nn.Module], images: Tensor) -> Tensor:
    return images.view(-1, 8, 8) if model is convolutions else images


def data() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return (torch.tensor(images, dtype=torch.float32) / 16)[order], torch.tensor(labels)[order]


def train(model: Callable[[], nn.Module], config: Config, seed: int, **how: object) -> tuple[float, float, Tensor]:
    """Loss and accuracy on data that it has not seen, and the parameters."""
    torch.manual_seed(seed)
    net = model()
    images, labels = data()
    optimizer = config.build(net.parameters(), total_steps=STEPS, **how)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        batch = torch.randint(1200, (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(shaped(model, images[batch])), labels[batch]).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        out = net(shaped(model, images[1200:]))
    loss = nn.functional.cross_entropy(out, labels[1200:]).item()
    return (
        loss,
        (out.argmax(dim=1) == labels[1200:]).float().mean().item(),
        nn.utils.parameters_to_vector(net.parameters()).detach(),
    )


def errors() -> list[dict[str, object]]:
    nearest = mock.patch.object(stack, "stochastic", lambda x, *_: x.to(torch.bfloat16))
    found = []
    for name, model in MODELS.items():
        for preset, config in CONFIGS.items():
            exact = [train(model, config, seed) for seed in SEEDS]
            ways = {"stochastic": [train(model, config, seed, state_dtype=torch.bfloat16) for seed in SEEDS]}
            with nearest, mock.patch("autoranger.components.optimizer.layout.interpreter", return_value=None):
                ways["nearest"] = [
                    train(model, config, seed, state_dtype=torch.bfloat16, compile=False) for seed in SEEDS
                ]
            row: dict[str, object] = {"model": name, "config": preset}
            row["float32"] = {"loss": mean(x[0] for x in exact), "accuracy": mean(x[1] for x in exact)}
            row["float32"]["sd over seeds"] = stdev(x[0] for x in exact)  # type: ignore[index]
            for way, results in ways.items():
                differences = [ours[0] - theirs[0] for ours, theirs in zip(results, exact, strict=True)]
                row[way] = {
                    "loss": mean(x[0] for x in results),
                    "accuracy": mean(x[1] for x in results),
                    "difference": mean(differences),
                    "its standard error": stdev(differences) / len(SEEDS) ** 0.5,
                    "distance": mean(
                        ((a[2] - b[2]).norm() / b[2].norm()).item() for a, b in zip(results, exact, strict=True)
                    ),
                }
            print(json.dumps(row), flush=True)
            found.append(row)
    return found


def times() -> list[dict[str, object]]:
    """A step of bfloat16 state against one of float32 state, turn by turn, one thread."""
    torch.set_num_threads(1)
    found = []
    for shape, count in (((256, 256), 8), ((2048, 2048), 3)):
        for preset, config in CONFIGS.items():
            optimizers = []
            for state_dtype in (None, torch.bfloat16):
                params = [nn.Parameter(torch.randn(shape)) for _ in range(count)]
                for p in params:
                    p.grad = torch.randn(shape)
                optimizers.append(config.build(params, total_steps=10_000, state_dtype=state_dtype))
            taken: list[list[float]] = [[], []]
            for _ in range(25):
                for own, optimizer in zip(taken, optimizers, strict=True):
                    begin = time.perf_counter()
                    optimizer.step()
                    own.append(time.perf_counter() - begin)
            ratio = median(b / a for a, b in zip(*taken, strict=True))
            found.append({"shape": shape, "tensors": count, "config": preset, "ratio": ratio})
            print(found[-1], flush=True)
    return found


if __name__ == "__main__":
    record = {"torch": torch.__version__, "steps": STEPS, "seeds": len(SEEDS), "times": times(), "errors": errors()}
    (HERE / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

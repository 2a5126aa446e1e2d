"""How far does `cifar`'s full model for a GPU get when it is trained alone, by one optimizer, in mixed precision?

usage: python studies/12_cifar_alone/run.py LR [--components linear_warmup explore_exploit …] [--weight-decay 1e-4]
                                               [--seed 0] [--steps N] [--device cpu|cuda] [--data FOLDER]

One training of the ResNet on 32×32 images with AdamW and components, by default full Ranger21. Parameters are float32,
the forward and backward pass run in bfloat16 (`torch.autocast`) and channels-last. Adds a line to `record.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

from autoranger import Config
from autoranger.bench import machine
from autoranger.components.presets import RANGER21
from autoranger.search.population.replay import Replayed
from autoranger.search.tasks.cifar import Cifar
from autoranger.search.vectorization import batch_order, reseed

HERE = Path(__file__).parent
TOLD = 250
"""Steps between lines of progress."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lr", type=float)
    parser.add_argument("--components", nargs="*", default=list(RANGER21))
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    task = Cifar("cuda", asked.data).full()  # the larger model, wherever it is trained
    steps = asked.steps or task.steps
    data = {name: (channels_last(x.to(device)), y.to(device)) for name, (x, y) in task.data().items()}
    torch.manual_seed(asked.seed)
    model = task.model().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = Config(asked.lr, weight_decay=asked.weight_decay, components=dict.fromkeys(asked.components, True))
    optimizer = config.build(model.parameters(), total_steps=steps)

    inputs, targets = data["train"]
    losses, begin, loss = [], time.perf_counter(), torch.zeros((), device=device)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        with mixed(device):
            output = model(x)
        found = task.loss(output.float(), y)
        found.backward()
        optimizer.step()
        loss.copy_(found.detach())

    advance = Replayed(step, torch.cuda.Stream(device)) if device.type == "cuda" else step
    for t, chosen in enumerate(batch_order(len(inputs), task.batch_size, steps, asked.seed).to(device), start=1):
        reseed(device, t)
        advance(channels_last(task.augment(inputs[chosen])), targets[chosen])
        if t % TOLD == 0 or t == steps:
            losses.append(round(loss.item(), 4))
            print(f"{t:,} steps, {time.perf_counter() - begin:.1f} s, loss {losses[-1]}", flush=True)
    seconds = time.perf_counter() - begin
    found = {
        "components": asked.components,
        "weight_decay": asked.weight_decay,
        "lr": asked.lr,
        "seed": asked.seed,
        "steps": steps,
        "batch": task.batch_size,
        "valid": accuracy(model, *data["valid"]),
        "test": accuracy(model, *data["test"]),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "losses": losses,
        "date": f"{date.today()}",
        "machine": machine(device.type),
    }
    with (HERE / "record.jsonl").open("a") as record:
        record.write(json.dumps(found) + "\n")
    print(json.dumps(found))


def mixed(device: torch.device) -> torch.autocast:
    """Matrix products and convolutions in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)  # as a CUDA graph needs it


def channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    model.eval()
    with mixed(inputs.device):
        right = [
            (model(x).argmax(dim=-1) == y).sum() for x, y in zip(inputs.split(500), targets.split(500), strict=True)
        ]
    return float(sum(right)) / len(inputs)


if __name__ == "__main__":
    main()

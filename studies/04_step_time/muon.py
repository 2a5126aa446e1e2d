"""How long does a step of Muon take, beside torch's Muon for the hidden matrices and fused AdamW for the rest?

usage: python studies/04_step_time/muon.py

The GPT of the other measurements (6 blocks of width 384). Both optimizers step in turns in one process; what counts is
the ratio of each pair. Writes muon.json. torch.optim.Muon is there from torch 2.9 on.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from autoranger import Config
from autoranger.bench import machine

RECORD = Path(__file__).parent / "muon.json"
WIDTH, BLOCKS, VOCABULARY, CONTEXT = 384, 6, 65, 256
PAIRS, FIRST = 60, 5


class Block(nn.Module):
    """The parameters of a block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.attention, self.project = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)


class Gpt(nn.Module):
    """The parameters of a GPT, with a gradient each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm, self.head = nn.LayerNorm(WIDTH, bias=False), nn.Linear(WIDTH, VOCABULARY, bias=False)
        for p in self.parameters():
            p.grad = torch.randn_like(p)


def main() -> None:
    one, other = Gpt(), Gpt()
    hidden = [p for name, p in other.named_parameters() if name.startswith("blocks") and p.dim() == 2]
    rest = [p for p in other.parameters() if all(p is not matrix for matrix in hidden)]
    ours = Config.preset("muon", lr=1e-5).build(one)
    muon = torch.optim.Muon(hidden, lr=1e-5, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=1e-5, fused=True)

    def theirs() -> None:
        muon.step()
        adamw.step()

    pairs = [(seconds(ours.step), seconds(theirs)) for _ in range(FIRST + PAIRS)][FIRST:]
    ratios = statistics.quantiles([a / b for a, b in pairs], n=4)
    found = {
        "machine": machine("cpu"),
        "pairs": PAIRS,
        "milliseconds": {
            "autoranger, muon": 1e3 * statistics.median(a for a, _ in pairs),
            "torch.optim.Muon and AdamW(fused=True)": 1e3 * statistics.median(b for _, b in pairs),
        },
        "ratio": {"median": ratios[1], "quartiles": [ratios[0], ratios[2]]},
    }
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def seconds(step: Callable[[], object]) -> float:
    """How long a step takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

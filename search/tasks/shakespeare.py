"""`shakespeare`: the next character of tiny Shakespeare (Karpathy 2015), by a small causal transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoranger.search.tasks import files
from autoranger.search.tasks.task import Split, Task, averages, scaled

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
NAMES = ("tinyshakespeare.txt", "input.txt")


class Shakespeare(Task):
    """1,115,394 characters of plays, 65 different ones: the first 90 % train, then 5 % validate and 5 % test.

    Inputs `[N, T]` are windows of the text, targets `[N, T]` the same one character later. On a CPU: windows of 16
    characters, width 24, and the first 8,192 characters for each of validation and test. On a GPU: 128, width 128.
    """

    name = "shakespeare"
    summary = "tiny Shakespeare, character level: a causal transformer of two small blocks on a CPU, of four on a GPU"
    source = "github.com/karpathy/char-rnn (text in the public domain), 1.1 MB"
    metric_name = "negative bits per character"
    lr_range = (3e-3, 1e-1)

    def __init__(self, device: torch.device | str = "cpu", data_dir: Path | None = None) -> None:
        super().__init__(device, data_dir)
        self.batch_size, self.steps, self.full_steps = (8, 1000, 10_000) if self.small else (64, 2000, 10_000)
        self.context, self.survivors = (16, 1 / 8) if self.small else (128, Task.survivors)

    def data(self) -> Mapping[str, Split]:
        text = torch.from_numpy(read_text(self.data_dir))
        first, second = len(text) * 90 // 100, len(text) * 95 // 100
        most = 8_192 + 1 if self.small else len(text)
        return {
            "train": windows(text[:first], self.context, self.context if self.small else self.context // 4),
            "valid": windows(text[first:second][:most], self.context, self.context),
            "test": windows(text[second:][:most], self.context, self.context),
        }

    def model(self, scale: float = 1.0) -> nn.Module:
        width, heads, blocks, factor = (24, 2, 2, 2) if self.small else (128, 4, 4, 4)
        width = scaled(width, scale, heads)
        return Transformer(
            characters=65, context=self.context, width=width, heads=heads, blocks=blocks, hidden=factor * width
        )

    @averages
    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Minus the mean cross entropy in bits per character."""
        return -self.loss(output, target) / math.log(2)


def read_text(data_dir: Path | None) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The text as indices of its sorted characters; raises DataError if it is missing or damaged."""
    folder = files.find_folder("tiny Shakespeare", NAMES, data_dir, needs=f"{' or '.join(NAMES)} (from {URL})")
    found = [folder / name for name in NAMES if (folder / name).exists()] if folder else []
    path = found[0] if found else files.download("tiny Shakespeare", URL, SHA256)
    content = np.frombuffer(files.read_checked(path, SHA256, URL), dtype=np.uint8)
    return np.unique(content, return_inverse=True)[1].astype(np.int64)


def windows(text: Tensor, length: int, stride: int) -> Split:
    """Windows `[N, length]` of the text, one every `stride` characters, and the same windows one character later."""
    every = text.unfold(0, length + 1, stride)
    return every[:, :-1].contiguous(), every[:, 1:].contiguous()


class Transformer(nn.Module):
    """Causal and pre-norm (Radford et al. 2019), without biases in its linear layers.

    Args:
        characters: how many there are.
        context: T, the longest window.
        width: of the residual stream.
        heads: of each attention; they share the width.
        blocks: one after another.
        hidden: width inside each block's perceptron.
    """

    def __init__(self, *, characters: int, context: int, width: int, heads: int, blocks: int, hidden: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(context, width, heads, hidden) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Characters `[B, T]` to scores of the next ones `[B, T, characters]`."""
        embedded = self.characters(x) + self.positions.weight[: x.shape[-1]]
        return self.head(self.norm(self.blocks(embedded)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention to earlier positions, then a perceptron, each with a residual connection."""

    def __init__(self, context: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False)
        )
        self.future: Tensor
        self.register_buffer("future", torch.full((context, context), -math.inf).triu(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` to the same shape."""
        x = x + self.attention(self.first_norm(x))
        return x + self.perceptron(self.second_norm(x))  # type: ignore[no-any-return]

    def attention(self, x: Tensor) -> Tensor:
        """Attention, written out: on a CPU vmap runs torch's fused attention row by row, at 0.6 times this speed."""
        count, length, width = x.shape
        parts = self.queries_keys_values(x).view(count, length, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        scores = queries @ keys.mT * (width // self.heads) ** -0.5
        attended = F.softmax(scores + self.future[:length, :length], dim=-1) @ values
        return self.merge(attended.transpose(1, 2).reshape(count, length, width))  # type: ignore[no-any-return]

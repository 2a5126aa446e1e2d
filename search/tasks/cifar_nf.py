"""`cifar_nf`: CIFAR-10 without normalization, where stepping out of the uniform prediction is the difficulty."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from autoranger.search.tasks.cifar import Cifar, flip, shift
from autoranger.search.tasks.task import scaled


class CifarNormalizerFree(Cifar):
    """The second experiment of Ranger21's paper (arXiv 2106.13731) in small: a ResNet-50 without its normalization.

    Data as in `cifar`, 16×16 on every device. Bottleneck blocks (He et al. 2015, arXiv 1512.03385) in stages of 3, 4, 6
    and 3, of width 16 on a CPU and 32 on a GPU; Kaiming's initialization by fan-out.
    """

    name = "cifar_nf"
    summary = "CIFAR-10 at 16×16, a bottleneck ResNet of 50 layers without any normalization"
    lr_range = (3e-4, 3e-2)

    def __init__(self, device: torch.device | str = "cpu", data_dir: Path | None = None) -> None:
        super().__init__(device, data_dir)
        self.side = 16
        self.batch_size, self.steps, self.full_steps = (32, 160, 1600) if self.small else (128, 1000, 10_000)
        self.smoothing = 0.0

    def full(self) -> Self:
        """At full length, the same net on the same images."""
        return super(Cifar, self).full()

    def augment(self, inputs: Tensor) -> Tensor:
        return inputs if self.small else shift(flip(inputs), self.side // 8)

    def model(self, scale: float = 1.0) -> nn.Module:
        return BottleneckResNet(scaled(16 if self.small else 32, scale))


class BottleneckResNet(nn.Module):
    """16×16 images to ten scores: a convolution of stride 2, stages of blocks, the mean over positions, a linear layer.

    Args:
        width: of the first stage, whose output has four times as many channels; each further stage doubles both.
        stages: number of blocks of each stage.
    """

    def __init__(self, width: int, stages: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU())
        channels = [width, *(4 * width * 2**stage for stage in range(len(stages)))]
        blocks = (
            Bottleneck(channels[stage + bool(i)], width * 2**stage, stride=2 if stage and not i else 1)
            for stage, count in enumerate(stages)
            for i in range(count)
        )
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels[-1], 10)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # all have one

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, 16, 16]` to scores `[B, 10]`."""
        return self.head(self.blocks(self.stem(x)).mean(dim=(-2, -1)))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Narrow to `width` channels, convolve 3×3, widen to four times `width`, and add the input, projected if needed."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride=stride, padding=1), nn.ReLU()),
            nn.Conv2d(width, outputs, 1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` to `[B, 4·width, H/stride, W/stride]`."""
        return torch.relu(self.shortcut(x) + self.body(x))

"""`cifar`: CIFAR-10 (Krizhevsky 2009) from its binary files; a small ResNet on a GPU, a smaller net on a CPU."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoranger.components.core.errors import DataError, first_line
from autoranger.components.core.files import write_whole
from autoranger.search.tasks import files
from autoranger.search.tasks.task import Split, Task, scaled

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
RECORDS, RECORD = 10_000, 1 + 3 * 32 * 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Cifar(Task):
    """50,000 images of which 5,000 validate, and 10,000 test images.

    On a GPU: 16×16 with flips, shifts and cutout, a ResNet with batch normalization, smoothed labels; in `full` at
    32×32, of twice the width, for 28 epochs. On a CPU: 16×16 and 2,000 images for each of validation and test, a
    three-layer convolutional net. Both are so small that a search takes minutes.
    """

    name = "cifar"
    summary = "CIFAR-10 photographs: 16×16, a small convolutional net on a CPU and a ResNet on a GPU"
    source = "cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009; free to use with citation), 162 MB"
    lr_range = (1e-3, 1e-1)

    def __init__(self, device: torch.device | str = "cpu", data_dir: Path | None = None) -> None:
        super().__init__(device, data_dir)
        self.side, self.width = 16, 16
        self.batch_size, self.steps, self.full_steps = (32, 400, 4000) if self.small else (128, 1000, 5000)
        self.smoothing = 0.0 if self.small else 0.2

    def full(self) -> Self:
        """At full length; on a GPU with the larger ResNet, on larger images."""
        task = super().full()
        if not self.small:
            task.side, task.width, task.batch_size = 32, 32, 256
        return task

    def data(self) -> Mapping[str, Split]:
        folder = batches_folder(self.data_dir)
        parts = [read_batch(folder / file) for file in FILES]
        inputs = torch.cat([self._prepare(images) for images, _ in parts])
        targets = torch.cat([labels for _, labels in parts])
        valid, test = (2_000, 2_000) if self.small else (5_000, 10_000)
        ranges = {"train": (0, 45_000), "valid": (45_000, 45_000 + valid), "test": (50_000, 50_000 + test)}
        return {name: (inputs[a:b], targets[a:b]) for name, (a, b) in ranges.items()}

    def model(self, scale: float = 1.0) -> nn.Module:
        return small_net(scaled(8, scale)) if self.small else ResNet(scaled(self.width, scale))

    def augment(self, inputs: Tensor) -> Tensor:
        return inputs if self.small else cut_out(shift(flip(inputs), self.side // 8), self.side // 4)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy; on a GPU a part `smoothing` of each label is spread over all classes."""
        if not self.smoothing:
            return super().loss(output, target)
        own = output.gather(-1, target[..., None])[..., 0]
        return (output.logsumexp(dim=-1) - torch.lerp(own, output.mean(dim=-1), self.smoothing)).mean()

    def _prepare(self, images: Tensor) -> Tensor:
        """Bytes `[N, 3, 32, 32]` to normalized floats `[N, 3, side, side]`."""
        pooled = F.avg_pool2d(images.float() / 255, 32 // self.side)
        return (pooled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def batches_folder(data_dir: Path | None) -> Path:
    """The folder with the binary files, the user's or downloaded; raises DataError if a named folder lacks them."""
    needs = f"{FOLDER}/ with data_batch_1.bin to data_batch_5.bin and test_batch.bin (from {URL})"
    return files.find_folder("CIFAR-10", FILES, data_dir, needs=needs, folder=FOLDER) or unpacked()


def unpacked() -> Path:
    """The folder with the binary files in the user's cache, downloaded once; DataError without network."""
    archive = files.download("CIFAR-10", URL, SHA256)
    folder = archive.parent / FOLDER
    complete = (folder / file for file in FILES)
    if not all(path.exists() and path.stat().st_size == RECORDS * RECORD for path in complete):
        try:
            folder.mkdir(exist_ok=True)
            with tarfile.open(archive) as tar:
                for file in FILES:
                    content = tar.extractfile(f"{FOLDER}/{file}")
                    write_whole(folder / file, content.read() if content else b"")
        except (OSError, EOFError, tarfile.TarError) as error:
            raise DataError(f"cannot unpack {archive} ({first_line(error)}); is the disk full?") from None
    return folder


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """One binary file: images `[10000, 3, 32, 32]` in bytes and labels `[10000]`; raises DataError if it is damaged."""
    raw = np.frombuffer(files.read_file(path, URL), dtype=np.uint8)
    if raw.size != RECORDS * RECORD:
        raise DataError(f"{path} has {raw.size:,} bytes instead of {RECORDS * RECORD:,}; get it again from {URL}.")
    records = torch.from_numpy(raw.reshape(RECORDS, RECORD).copy())
    labels = records[:, 0].long()
    if int(labels.max()) > 9:
        raise DataError(f"{path} is not CIFAR-10's binary version: it has labels above 9; get it from {URL}.")
    return records[:, 1:].reshape(RECORDS, 3, 32, 32), labels


def small_net(width: int = 8) -> nn.Module:
    """For 16×16 images: three convolutions and a linear layer; 7,322 parameters with 8 channels in the first."""
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(2 * width, 4 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * width, 10)),
    )


def norm_conv(inputs: int, outputs: int, *, pool: bool = False) -> nn.Sequential:
    """3×3 convolution, a 2×2 maximum where `pool`, batch normalization, GELU."""
    pooling = [nn.MaxPool2d(2)] if pool else []
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, *pooling, nn.BatchNorm2d(outputs), nn.GELU())


class ResNet(nn.Module):
    """ResNet-9 (after Page 2018, DAWNBench): four stages, two residual blocks.

    Args:
        width: channels of the first convolution; the last ones have eight times as many. 0.4 M parameters with 16, and
            1.6 M with 32.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(norm_conv(3, width), norm_conv(width, 2 * width, pool=True))
        self.first = nn.Sequential(norm_conv(2 * width, 2 * width), norm_conv(2 * width, 2 * width))
        self.middle = nn.Sequential(
            norm_conv(2 * width, 4 * width, pool=True), norm_conv(4 * width, 8 * width, pool=True)
        )
        self.second = nn.Sequential(norm_conv(8 * width, 8 * width), norm_conv(8 * width, 8 * width))
        self.head = nn.Linear(8 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, side, side]`, 16×16 or larger, to scores `[B, 10]`."""
        x = self.stem(x)
        x = self.middle(x + self.first(x))
        x = x + self.second(x)
        return self.head(x.amax(dim=(-2, -1)))  # type: ignore[no-any-return]


def flip(inputs: Tensor) -> Tensor:
    """Each image mirrored with probability ½."""
    mirrored = torch.rand(len(inputs), 1, 1, 1, device=inputs.device) < 0.5
    return torch.where(mirrored, inputs.flip(-1), inputs)


def cut_out(inputs: Tensor, size: int = 8) -> Tensor:
    """Each image with a square of the mean color somewhere (DeVries and Taylor 2017, arXiv 1708.04552)."""
    count, _, height, width = inputs.shape
    top = torch.randint(0, height + 1 - size, (count, 1, 1), device=inputs.device)
    left = torch.randint(0, width + 1 - size, (count, 1, 1), device=inputs.device)
    rows = torch.arange(height, device=inputs.device).view(1, height, 1)
    columns = torch.arange(width, device=inputs.device).view(1, 1, width)
    inside = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
    return inputs.masked_fill(inside[:, None], 0.0)


def shift(inputs: Tensor, most: int = 4) -> Tensor:
    """Each image moved by up to `most` pixels either way, reflected at the border."""
    count, channels, height, width = inputs.shape
    padded = F.pad(inputs, (most,) * 4, mode="reflect")
    down, right = torch.randint(0, 2 * most + 1, (2, count, 1), device=inputs.device)
    rows = (down + torch.arange(height, device=inputs.device)).view(count, 1, height, 1)
    columns = (right + torch.arange(width, device=inputs.device)).view(count, 1, 1, width)
    images = torch.arange(count, device=inputs.device).view(count, 1, 1, 1)
    planes = torch.arange(channels, device=inputs.device).view(1, channels, 1, 1)
    return padded[images, planes, rows, columns]

"""`fashion`: Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747) from its idx files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoranger.components.core.errors import DataError
from autoranger.search.tasks import files
from autoranger.search.tasks.task import Split, Task, scaled

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
ORIGIN = "github.com/zalandoresearch/fashion-mnist or Debian's package dataset-fashion-mnist"
FOLDER = "fashion-mnist"
SYSTEM = (Path("/usr/share/datasets/fashion-mnist"), Path("/usr/local/share/datasets/fashion-mnist"))
MEAN, STD = 0.2860, 0.3530

SHA256 = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
"""Checksums of the compressed files, by their names without `.gz`."""


class Fashion(Task):
    """60,000 grey images of clothing, of which the last 10,000 validate, and 10,000 test images.

    On a CPU: 14×14 and 2,000 images for each of validation and test, a perceptron. On a GPU: 28×28, a convolutional net
    and all images.
    """

    name = "fashion"
    summary = "Fashion-MNIST clothing: 14×14 and a perceptron on a CPU, 28×28 and a convolutional net on a GPU"
    source = f"{ORIGIN} (Xiao et al. 2017, MIT), 31 MB"
    lr_range = (3e-3, 1e-1)

    def __init__(self, device: torch.device | str = "cpu", data_dir: Path | None = None) -> None:
        super().__init__(device, data_dir)
        self.batch_size, self.steps, self.full_steps = (32, 400, 4000) if self.small else (128, 1000, 8000)
        self.survivors = 1 / 8 if self.small else Task.survivors

    def data(self) -> Mapping[str, Split]:
        inputs, targets = read_split("train", 60_000, self.data_dir)
        final_inputs, final_targets = read_split("t10k", 10_000, self.data_dir)
        count = 2_000 if self.small else 10_000
        parts = {
            "train": (inputs[:50_000], targets[:50_000]),
            "valid": (inputs[50_000 : 50_000 + count], targets[50_000 : 50_000 + count]),
            "test": (final_inputs[:count], final_targets[:count]),
        }
        return {name: (self._prepare(images), labels) for name, (images, labels) in parts.items()}

    def model(self, scale: float = 1.0) -> nn.Module:
        return perceptron(scaled(24, scale)) if self.small else convolutional(scaled(16, scale))

    def _prepare(self, images: Tensor) -> Tensor:
        """Bytes `[N, 28, 28]` to normalized floats `[N, 1, 28, 28]`, at half the resolution for a CPU."""
        scaled = images[:, None].float() / 255
        return ((F.avg_pool2d(scaled, 2) if self.small else scaled) - MEAN) / STD


def perceptron(width: int = 24) -> nn.Module:
    """For 14×14 images; 4,978 parameters with 24 hidden units."""
    return nn.Sequential(nn.Flatten(), nn.Linear(196, width), nn.ReLU(), nn.Linear(width, 10))


def convolutional(width: int = 16) -> nn.Module:
    """For 28×28 images: three convolutions of stride 2 and a linear layer; 33,546 parameters with 16 channels."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * width * 4 * 4, 10)),
    )


def read_split(part: str, count: int, data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """Images `[count, 28, 28]` in bytes and labels `[count]` of `train` or `t10k`; raises DataError if damaged."""
    images = read_idx(locate(f"{part}-images-idx3-ubyte", data_dir), (count, 28, 28))
    path = locate(f"{part}-labels-idx1-ubyte", data_dir)
    labels = read_idx(path, (count,)).long()
    if int(labels.max()) > 9:
        raise DataError(f"{path} has labels above 9, so it is not Fashion-MNIST's; get it from {ORIGIN}.")
    return images, labels


def locate(name: str, data_dir: Path | None) -> Path:
    """The path of a file of the data set, compressed or not: the user's, the system's, or downloaded."""
    names, needs = (name, f"{name}.gz"), f"{FOLDER}/ with {name}.gz (from {ORIGIN})"
    found = files.find_folder("Fashion-MNIST", names, data_dir, needs=needs, folder=FOLDER, system=SYSTEM)
    if found is None:
        return files.download("Fashion-MNIST", f"{URL}/{name}.gz", SHA256[name])
    return found / name if (found / name).exists() else found / f"{name}.gz"


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """An idx file of bytes, compressed or not; raises DataError if it is damaged or has another shape.

    The format: two zero bytes, 8 for unsigned bytes, the number of dimensions, each one as a big-endian 32-bit number,
    then the data.
    """
    content = files.read_file(path, ORIGIN)
    try:
        raw = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error):
        raise DataError(f"{path} is damaged (it does not decompress); get it again from {ORIGIN}.") from None
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    if not raw.startswith(header):
        raise DataError(f"{path} is not an idx file of {' × '.join(map(str, shape))} bytes; get it from {ORIGIN}.")
    body = np.frombuffer(raw, dtype=np.uint8, offset=len(header))
    if body.size != math.prod(shape):
        raise DataError(f"{path} has {body.size:,} bytes of data, not {math.prod(shape):,}; get it from {ORIGIN}.")
    return torch.from_numpy(body.reshape(shape).copy())

"""Data files of the right format with random content, for tests that need no real data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autoranger.search.tasks import cifar, fashion

CHARACTERS, LENGTH = 65, 1_115_394


def write_cifar(folder: Path) -> None:
    """Six files of 10,000 images, of labels 0 to 9 in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for file in cifar.FILES:
        records = np.frombuffer(rng.bytes(cifar.RECORDS * cifar.RECORD), dtype=np.uint8)
        records = records.reshape(cifar.RECORDS, cifar.RECORD).copy()
        records[:, 0] = np.arange(cifar.RECORDS) % 10
        records.tofile(folder / file)


def idx(values: np.ndarray) -> bytes:
    """Bytes `[...]` in the idx format."""
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">u4").tobytes() + values.tobytes()


def write_fashion(folder: Path) -> None:
    """Four uncompressed files, of labels 0 to 9 in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.frombuffer(rng.bytes(count * 784), dtype=np.uint8).reshape(count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))


def write_text(path: Path) -> str:
    """Random text of as many characters as tiny Shakespeare has; its SHA-256."""
    codes: Sequence[int] = np.random.default_rng(0).integers(32, 32 + CHARACTERS, LENGTH)
    content = np.asarray(codes, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def write_all(folder: Path) -> str:
    """Everything that the shipped tasks read; the SHA-256 of the text."""
    write_cifar(folder / cifar.FOLDER)
    write_fashion(folder / fashion.FOLDER)
    return write_text(folder / "tinyshakespeare.txt")

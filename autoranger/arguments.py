"""Checks of a command's arguments before the work begins: the device, and the file for the config."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path

import torch

from autoranger.components.core.config import read
from autoranger.components.core.errors import ConfigError, DataError, reason
from autoranger.components.core.files import check_writable, write_whole


def pick_device(name: str) -> str:
    """The device, with `auto` resolved; raises ConfigError if this machine does not have it."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or not (index == "" or (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"device is '{name}', but must be auto, cpu, cuda or cuda:<number>.")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no device '{name}': torch {torch.__version__} sees {torch.cuda.device_count()} GPUs here; "
            "use --device auto or cpu."
        )
    return name


def pick_devices(names: str | None) -> list[str]:
    """The devices of a list with commas; all GPUs for `all`, none for None. Raises ConfigError as `pick_device`."""
    if names == "all":
        names = ",".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        if not names:
            raise ConfigError("--devices is all, but torch sees no GPU here; use --workers for processes on the CPU.")
    return [] if names is None else [pick_device(name.strip()) for name in names.split(",")]


def check_out(path: Path) -> None:
    """Checks that a config can be written to a path without losing another file."""
    if path.is_dir():
        raise ConfigError(f"--out {path} is a folder; name a file in it, as in {path / 'tuned.toml'}.")
    if path.exists():
        try:
            if path.is_file():  # a device may have no end
                read(path)
            else:
                raise ConfigError("not a file")
        except (ConfigError, DataError):
            raise ConfigError(f"--out {path} exists and is not a config of autoranger; choose another name.") from None
    check_writable(path.resolve().parent, path.parent)


def keep_previous(path: Path) -> Path | None:
    """Copies the config that will be replaced to the first of `<name>.bak`, `.bak2`, … that is free, and returns that.

    Returns None if there is no config.
    """
    try:
        previous = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}, to keep it: {reason(error)}.") from None
    names = chain([".bak"], (f".bak{number}" for number in count(2)))
    places = (path.with_name(path.name + name) for name in names)
    place = next(place for place in places if not place.exists())
    write_whole(place, previous)
    return place

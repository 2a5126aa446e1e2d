"""Memory: how much is free, whether it has run out, and whether the process keeps what it frees."""

from __future__ import annotations

import ctypes
import sys

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # names of malloc.h


def keep_freed_memory() -> None:
    """Makes glibc's malloc reuse freed blocks of up to 32 MiB in this process; does nothing without glibc.

    Programs call it, as the command line does; a library should not change how its user's process handles memory.

    A step allocates and frees dozens of blocks of a few MB. Without this the page faults take longer than the
    arithmetic (on two cores a population step of 128 digits candidates took 52 µs a candidate, and 18 µs with it).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(MMAP_THRESHOLD, 32 << 20)
    mallopt(TRIM_THRESHOLD, (1 << 31) - 1)


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU. A CPU has no bound, since its chunks are small enough for its caches."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else sys.maxsize


EXHAUSTED = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
"""What the CPU's allocator, CUDA, cuBLAS and cuDNN say when memory has run out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that memory has run out on any device.

    Such an error within the capture of a CUDA graph ends the capture, which then raises an error of its own.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError) and any(words in str(error) for words in EXHAUSTED):
        return True
    return error.__context__ is not None and is_out_of_memory(error.__context__)


def release(device: torch.device) -> None:
    """Returns cached memory to the GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

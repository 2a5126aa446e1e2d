"""What is used of torch though torch calls it private, and what each stands for: where to look when a torch is new.

All else that the package uses of torch is public. `tests/test_structure.py` holds this, and `studies/14_versions` has
the versions that were tried.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# A mode in which each operation of torch calls a function of ours. Documented, but in a private module.
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

# Nested tuples, lists and dicts of tensors, taken apart and put together. torch.utils.pytree is public from torch 2.8.
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

__all__ = [
    "TorchDispatchMode",
    "buffers",
    "copy_each",
    "is_intercepted",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
    "version",
]


def is_intercepted() -> bool:
    """Whether some mode sees each operation of torch, and values may be no numbers; nothing public tells."""
    return _get_current_dispatch_mode() is not None


def version(x: Tensor) -> int:
    """How often a tensor has been changed in place, which autograd counts; 0 in inference mode, where nobody counts."""
    return 0 if x.is_inference() else x._version


def buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own buffers by name, at the cost of an attribute; `named_buffers` walks over all of them."""
    return module._buffers


def copy_each(targets: list[Tensor], values: list[Tensor]) -> None:
    """`target.copy_(value)` for each, in one call: what torch's own optimizers use for `foreach=True`."""
    torch._foreach_copy_(targets, values)  # pyright: ignore[reportPrivateImportUsage]

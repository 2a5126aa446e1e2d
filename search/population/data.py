"""Turns a task's data, in any ordinary form, into tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from autoranger.components.core.errors import ConfigError, DataError
from autoranger.components.core.private import tree_leaves, tree_map
from autoranger.search.tasks.task import Split, Task
from autoranger.search.tasks.words import about, reason
from autoranger.search.vectorization import forked, reseed

PARTS = ("train", "valid", "test")
TARGETS = ("labels", "label", "targets", "target", "y")
"""Names of the targets in a dictionary that has the inputs, too."""


def splits(task: Task) -> dict[str, Split]:
    """The three splits of a task's data, each as inputs and targets: tensors, or tuples and dictionaries of them.

    If the task does not set its `batch_size`, it becomes that of the loader of its training data, if there is one.
    Random numbers that the task draws for its data are the same every time. Integer targets become int64.

    Raises:
        ConfigError: if the data cannot be made tensors, or their parts do not match.
        DataError: if files are missing.
    """
    with forked(task.device):
        reseed(task.device, 0)
        try:
            given = task.data()
            if not isinstance(given, Mapping):
                raise ConfigError(
                    f"{about(task)}: data is a {kind(given)}; return a dict of train, valid and test splits."
                )
            if missing := set(PARTS) - set(given):
                names = " and ".join(sorted(missing))
                raise ConfigError(f"{about(task)}: its data lack {names}; return train, valid and test splits.")
            size = given["train"].batch_size if isinstance(given["train"], DataLoader) else None
            if size and not sets(task, "batch_size"):
                task.batch_size = size
            return {part: as_split(given[part], f"{about(task)}: {part}") for part in PARTS}
        except (ConfigError, DataError):
            raise
        except Exception as error:
            raise ConfigError(f"{about(task)}: its data cannot be made ({reason(error)}).") from error


def sets(task: Task, name: str) -> bool:
    """Whether a task, or its class, has an attribute of its own."""
    return name in vars(task) or any(name in vars(kind) for kind in type(task).__mro__ if kind not in Task.__mro__)


def as_split(given: Any, what: str) -> Split:
    """Inputs and targets of a split.

    Args:
        given: a pair, `(*inputs, targets)`, a dictionary with one of `TARGETS`, or a map-style data set, or loader of
            one, whose items have such a form.
        what: the beginning of a message.
    """
    if isinstance(given, DataLoader) or is_dataset(given):
        given = collated(given, what)
    if isinstance(given, Mapping):
        given = pair(given, what)
    if not isinstance(given, tuple | list) or len(given) < 2:
        raise ConfigError(
            f"{what} is a {kind(given)}; return (inputs, targets), a dict with 'labels', or a data set of such items."
        )
    *inputs, targets = given
    found = (
        tree(inputs[0] if len(inputs) == 1 else tuple(inputs), f"{what} inputs"),
        tree_map(to_int64, tree(targets, f"{what} targets")),
    )
    check_lengths(found, what)
    return found


def check_lengths(parts: Split, what: str) -> None:
    """Raises ConfigError if inputs and targets differ in length, or are empty."""
    leaves = [tree_leaves(part) for part in parts]
    if any(x.dim() == 0 for part in leaves for x in part) or not all(leaves):
        raise ConfigError(f"{what} holds a single number where it needs one for each example.")
    counts = [[len(x) for x in part] for part in leaves]
    if len({n for part in counts for n in part}) > 1:
        inputs, targets = (" and ".join(map(str, dict.fromkeys(part))) for part in counts)
        raise ConfigError(f"{what} has {inputs} inputs and {targets} targets; return one target for each input.")
    if not counts[0][0]:
        raise ConfigError(f"{what} is empty; return at least one example.")


def pair(given: Mapping[str, Any], what: str) -> Split:
    """Inputs and targets from a dictionary that has both."""
    found = [name for name in given if name in TARGETS]
    if len(found) != 1 or len(given) < 2:
        raise ConfigError(
            f"{what} is a dict of {', '.join(map(str, given))}; call the targets, and nothing else, "
            f"{' or '.join(map(repr, TARGETS))}, or return (inputs, targets)."
        )
    return {name: part for name, part in given.items() if name != found[0]}, given[found[0]]


def collated(source: Any, what: str) -> Any:
    """The items of a data set in their order, as one batch of its loader's `collate_fn`."""
    dataset: Any = source
    collate, batches, chosen = default_collate, False, None
    if isinstance(source, DataLoader):
        dataset, collate = source.dataset, source.collate_fn
        batches, chosen = source.batch_sampler is None, sampled(source, what)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise ConfigError(f"{what} is a stream of unknown length; return a data set with a length, or tensors.")
    items = [dataset[i] for i in (range(len(dataset)) if chosen is None else chosen)]
    try:
        return tree_map(lambda *parts: torch.cat(parts), *map(collate, items)) if batches else collate(items)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{what} cannot be one batch ({reason(error)}); pad examples to one shape.") from error


def sampled(loader: Any, what: str) -> list[int] | None:
    """The indices of the examples that a loader's sampler chooses; None for all of them."""
    sampler = loader.sampler
    if isinstance(sampler, SequentialSampler) or (isinstance(sampler, RandomSampler) and not sampler.replacement):
        return None
    if not hasattr(sampler, "__len__"):
        return None
    drawn = list(islice(sampler, len(sampler)))
    if len(set(drawn)) == len(drawn):
        return sorted(drawn)
    warnings.warn(
        f"{what} has a sampler that draws some examples more often than others; here all are drawn alike. Weight the "
        "loss instead, or repeat examples in the data set.",
        stacklevel=2,
    )
    return None


def is_dataset(given: Any) -> bool:
    """Whether this is a data set: one of torch, a list of examples, or anything else with a length and such items."""
    if isinstance(given, Dataset):
        return True
    if isinstance(given, list):
        return len(given) > 2 and all(isinstance(x, tuple | Mapping) and len(x) > 1 for x in given)
    if isinstance(given, tuple | Mapping | str | Tensor) or hasattr(given, "__array__"):
        return False
    try:
        return len(given) > 0 and isinstance(given[0], tuple | list | Mapping)
    except (TypeError, KeyError, IndexError):
        return False


def tree(given: Any, what: str) -> Any:
    """Tensors from arrays, lists and data frames; tuples and dictionaries keep their structure."""
    if isinstance(given, Mapping):
        return {name: tree(part, f"{what}[{name!r}]") for name, part in given.items()}
    if isinstance(given, tuple) and not all(isinstance(x, int | float) for x in given):
        return tuple(tree(part, f"{what}[{i}]") for i, part in enumerate(given))
    return tensor(given, what)


def tensor(given: Any, what: str) -> Tensor:
    """A tensor of numbers; raises ConfigError for anything else, such as text or rows of different lengths."""
    if isinstance(given, Tensor):
        if given.is_nested:
            raise ConfigError(f"{what} are nested tensors of different shapes; pad them to one.")
        return given.detach().to_dense().as_subclass(Tensor)
    if isinstance(given, np.ma.MaskedArray):
        raise ConfigError(f"{what} is a masked array, and a mask would be lost; fill it, or pass the mask as an input.")
    try:
        if isinstance(given, list | tuple) and given and all(isinstance(x, Tensor) for x in given):
            return torch.stack([x.detach() for x in given])
        array = np.asarray(given)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{what} differ in shape from each other; pad them to one length.") from error
    if array.dtype.kind not in "biufc":
        raise ConfigError(f"{what} is a {kind(given)} of {array.dtype}; turn it into an array of numbers.")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    with warnings.catch_warnings():  # of arrays that must not be written to, a memory map's; nobody writes to them
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(native).reshape(array.shape)


def to_int64(x: Tensor) -> Tensor:
    """Integers as int64."""
    return x if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool else x.long()


def fitted(given: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Tensors on a device; floating-point ones in the type of the model's parameters (NumPy's default is float64)."""

    def fit(x: Tensor) -> Tensor:
        return x.to(device, dtype if dtype is not None and x.is_floating_point() else None)

    return tree_map(fit, given)


def pooled(task: Task, data: Mapping[str, Split]) -> Split:
    """Training and validation data, one after the other; raises ConfigError if they differ in form."""
    try:
        if [x.dtype for x in tree_leaves(data["train"])] != [x.dtype for x in tree_leaves(data["valid"])]:
            raise TypeError("their types differ")
        inputs, targets = (
            tree_map(lambda *parts: torch.cat(parts), *parts)
            for parts in zip(data["train"], data["valid"], strict=True)
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{about(task)}: resplit is True, but its train and valid splits differ in form ({reason(error)}); "
            "give them examples of the same shape and type, or leave resplit off."
        ) from error
    return inputs, targets


def augmenting(task: Task) -> Callable[[Any], Any] | None:
    """A task's `augment`, its results made tensors; None if the task does not override it."""
    if type(task).augment is Task.augment and "augment" not in vars(task):
        return None

    def augment(inputs: Any) -> Any:
        try:
            return tree(task.augment(inputs), f"{about(task)}: what augment returns")
        except (ConfigError, DataError):
            raise
        except Exception as error:
            raise ConfigError(f"{about(task)}: its augment fails on a batch ({reason(error)}).") from error

    return augment


def kind(x: Any) -> str:
    """The name of a value's type."""
    return type(x).__name__

"""Mistakes in a task that would silently give wrong results: invalid labels, mismatched shapes, NaN in the data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.private import tree_leaves, tree_map
from autoranger.search.direction import require_direction
from autoranger.search.population.replica import Replica
from autoranger.search.tasks.task import Split, Task, default
from autoranger.search.tasks.words import about, reason

TRIES = 4
"""Random outputs to try. Only a loss that ignores the order of targets on all of them is reported."""


def check_labels(task: Task, output: Any, target: Any) -> None:
    """Raises ConfigError if outputs and targets do not suit a task's default loss or metric."""
    defaults = [name for name in ("loss", "metric") if default(task, name)]
    if not defaults:
        return
    what = f"{about(task)}: its {defaults[0]} is the default, {'cross entropy' if 'loss' in defaults else 'accuracy'}"
    fix = f"override {' and '.join(defaults)}"
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        raise ConfigError(f"{what}, for one tensor of scores and one of labels; {fix}.")
    if output.shape[:-1] != target.shape:
        raise ConfigError(
            f"{what}, for scores [N, classes] and labels [N], but outputs are {list(output.shape)} and targets "
            f"{list(target.shape)}; reshape them, or {fix}."
        )
    if target.is_floating_point():
        raise ConfigError(f"{what}, for integer labels, but targets are {target.dtype}; {fix}.")


def check_classes(task: Task, classes: int, data: Mapping[str, Split]) -> None:
    """Raises ConfigError for a label outside the model's classes, if loss or metric is the default."""
    if not default(task, "loss") and not default(task, "metric"):
        return
    for part, (_, target) in data.items():
        wrong = (
            ((target < 0) | (target >= classes)).flatten(1).any(1)
            if target.dim() > 1
            else ((target < 0) | (target >= classes))
        )
        if wrong.any():
            at = int(wrong.nonzero()[0])
            label = target[at][(target[at] < 0) | (target[at] >= classes)].flatten()[0]
            what = "loss and metric" if default(task, "loss") else "metric"
            raise ConfigError(
                f"{about(task)}: label {int(label)} at {part}[{at}] is not one of the model's {classes} classes; "
                f"correct it, or override {what} to leave such labels out."
            )


def check_pairing(replica: Replica, output: Any, target: Any) -> None:
    """Raises ConfigError if loss or metric compares every output with every target, as `[N, 1]` − `[N]` does."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor) or not output.is_floating_point():
        return
    if len(target) < 3 or not any(spreads(shape, target.shape) for shape in (output.shape, output.shape[:-1])):
        return
    others = target, target.roll(1, 0), target[:1].expand_as(target)
    for name in ("loss", "metric"):
        call = getattr(replica.task, name)
        seen = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for _ in range(TRIES):
                    some = torch.rand(output.shape, device=output.device, dtype=output.dtype)
                    seen.append([float(call(some.clone(), y.clone())) for y in others])
            except Exception:  # which says nothing: these are no outputs of the model
                continue
        blind = all(abs(value - rolled) <= 1e-6 * abs(value) for value, rolled, _ in seen)
        if blind and any(abs(value - constant) > 1e-3 * abs(value) for value, _, constant in seen):
            raise ConfigError(
                f"{about(replica.task)}: its {name} compares every output with every target, since outputs are "
                f"{list(output.shape)} and targets {list(target.shape)}; give them one shape, as with "
                "output.squeeze(-1)."
            )


def spreads(one: torch.Size, other: torch.Size) -> bool:
    """Whether broadcasting these shapes repeats both of them."""
    try:
        together = torch.broadcast_shapes(one, other).numel()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return bool(together > max(one.numel(), other.numel()))


def check_examples(task: Task, replica: Replica, data: Mapping[str, Split]) -> None:
    """Tries the examples that are most likely to fail: extreme integers and NaN. Raises ConfigError if one does."""
    for part, split in data.items():
        replica.train(part == "train")
        chosen, broken = telling(split, task.batch_size)
        x, y = tree_map(lambda t: t[chosen], split)  # noqa: B023
        try:
            with torch.set_grad_enabled(part == "train"):
                outputs = replica.output(x)
                if outputs_classes := classes_of(outputs, y):
                    check_classes(task, outputs_classes, data)
                loss = replica.task.loss(outputs, y) if part == "train" else None
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{about(task)}: its model or loss fails on examples of the {part} split with the smallest and largest "
                f"labels or inputs, such as {part}[{chosen[0]}] ({reason(error)})."
            ) from error
        if broken is None:
            continue
        seen = [*tree_leaves(outputs), *([] if loss is None else [loss])]
        if any(isinstance(t, Tensor) and t.isnan().any() for t in seen) or unfit(y):
            raise ConfigError(
                f"{about(task)}: {part}[{broken}] contains NaN or infinity, and so do the model's outputs or the "
                "loss; clean or fill the data."
            )


def classes_of(output: Any, target: Any) -> int:
    """Number of classes that a model scores; 0 if its outputs and targets do not look like scores and labels."""
    fits = isinstance(output, Tensor) and isinstance(target, Tensor) and output.shape[:-1] == target.shape
    return output.shape[-1] if fits and not target.is_floating_point() and output.is_floating_point() else 0


def unfit(target: Any) -> bool:
    """Whether targets contain NaN."""
    return any(bool(t.isnan().any()) for t in tree_leaves(target) if t.is_floating_point())


def telling(split: Split, count: int) -> tuple[list[int], int | None]:
    """Indices of the examples with extreme integers or non-finite values, and the first one that is not finite."""
    found, broken = [], None
    for x in tree_leaves(split):
        flat = x.reshape(len(x), -1)
        if not flat.shape[1]:
            continue
        if x.is_floating_point():
            bad = (~flat.isfinite()).any(1).nonzero()
            if len(bad):
                found.append(int(bad[0]))
                broken = int(bad[0]) if broken is None else broken
        elif not x.is_complex() and x.dtype != torch.bool:
            found += [int(flat.amin(1).argmin()), int(flat.amax(1).argmax())]
    total = len(tree_leaves(split)[0])
    return list(dict.fromkeys([*found, *range(min(total, count))]))[: max(count, len(set(found)), 1)], broken


def check_repeats(task: Task, one: Any, other: Any, batch: Any, again: Any) -> bool:
    """Whether the same seed gives the same model and batches; warns if it does not.

    Raises ConfigError if two models are the same module.
    """
    mine, theirs = (dict(r.named_parameters()) | dict(r.named_buffers()) for r in (one, other))
    if any(mine[name] is theirs.get(name) for name in mine):
        raise ConfigError(f"{about(task)}: model returns the same module again; make a new one in each call.")
    pairs = {"model": [mine[name] for name in mine], "augment": tree_leaves(batch)}
    others = {"model": [theirs.get(name) for name in mine], "augment": tree_leaves(again)}
    for what, tensors in pairs.items():
        same = all(
            b is not None and torch.allclose(a.double(), b.double(), equal_nan=True)
            for a, b in zip(tensors, others[what], strict=True)
        )
        if not same:
            warnings.warn(
                f"{about(task)}: {what} gives different results for the same seed, so that nothing can be repeated; "
                "draw from the global generators of torch, numpy.random or random, not from others.",
                stacklevel=2,
            )
            return False
    return True


def check_weights(task: Task, loss: Tensor, params: list[Any]) -> None:
    """Warns if the loss depends on parameters outside the model, which would not be trained."""
    known, seen, todo = {id(p) for p in params}, set[Any](), [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            warnings.warn(
                f"{about(task)}: its loss depends on a parameter {list(leaf.shape)} that is not the model's and is "
                "not trained; make it a part of the model, or set requires_grad to False.",
                stacklevel=2,
            )
            return


def check_settings(task: Task) -> None:
    """Raises ConfigError for a task whose batch size, lengths, learning rates or survivors are invalid."""
    for name in ("batch_size", "steps", "full_steps"):
        value = getattr(task, name)
        if not (value is None and name == "full_steps") and not (isinstance(value, Integral) and int(value) >= 1):
            raise ConfigError(f"{about(task)}: {name} is {value!r}, but must be a whole number from 1.")
    if not isinstance(task.resplit, bool):
        raise ConfigError(f"{about(task)}: resplit is {task.resplit!r}, but must be True or False.")
    require_direction(about(task), task.metric_name, task.direction)
    rates = task.lr_range
    if not (isinstance(rates, tuple | list) and len(rates) == 2 and all(isinstance(lr, Real) for lr in rates)):
        raise ConfigError(f"{about(task)}: lr_range is {rates!r}, but must be the lowest and the highest rate.")
    if not (isinstance(task.survivors, Real) and 0 < task.survivors <= 1):
        raise ConfigError(f"{about(task)}: survivors is {task.survivors!r}, but must be above 0 and at most 1.")

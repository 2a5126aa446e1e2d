"""The check of a task before a search: does once all that the search will do, and sees whether vmap gets it right."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from autoranger.components.core.errors import ConfigError
from autoranger.components.core.private import tree_leaves
from autoranger.search.population.checks import (
    check_classes,
    check_examples,
    check_labels,
    check_pairing,
    check_repeats,
    check_weights,
)
from autoranger.search.population.data import augmenting
from autoranger.search.population.models import Together, gradients, pass_on
from autoranger.search.population.prepared import Prepared
from autoranger.search.population.replica import Replica
from autoranger.search.population.score import piece, whole
from autoranger.search.tasks.task import Split, default
from autoranger.search.tasks.words import about, reason
from autoranger.search.vectorization import (
    FALLBACK,
    Tensors,
    Tree,
    Vectorizer,
    cloned,
    drawn,
    item,
    length,
    seedwise,
    vectorized,
)

SEEDS = [0, 1]
"""Seeds of the check. A loss that works with one may fail with several."""

DIVISIONS = 16
"""Seeds whose division of the data is tried. A rare class may be missing from some."""

BATCHES = 4
"""Batches that are drawn; only the first is trained on."""

LOSS, GRADIENT, LOW = 1e-4, 2e-2, 5e-2
"""Relative tolerances of a loss, of gradients, and of both in low precision."""


Rows = list[tuple[Replica, Tensor, Tensors]]
"""For each seed a model after one forward pass in training mode, with its loss and gradients."""


def preflight(population: Prepared) -> None:
    """Finds out how a task's models can be called, which buffers change, and whether random numbers are drawn.

    Raises:
        ConfigError: if training or scoring an untrained model fails or gives wrong results.
    """
    if population.device.type == "meta":  # where nothing has a value
        return
    batches = list(islice(population._batches(SEEDS, BATCHES), BATCHES))
    if default(population.task, "loss"):
        check_outputs(population, item(batches[0], 0))
    rows, moving, population.noisy = Rows(), set[str](), augments_at_random(population)
    for s, seed in enumerate(SEEDS):
        replica = population.replica(seed).train()
        before = {name: x.clone() for name, x in replica.named_buffers()}
        rows.append((replica, *ordinary(population, replica, item(batches[0], s))))
        moving |= {name for name, x in replica.named_buffers() if not torch.equal(x, before[name])}
        if s == 0:
            check_weights(population.task, rows[0][1], list(replica.parameters()))
    population.moving = sorted(moving & population.start(1, SEEDS)[1].keys())
    if not any(loss.isfinite() for _, loss, _ in rows):
        check_examples(population.task, population.replica(0), population.data)
        raise ConfigError(f"{about(population.task)}: its loss is {float(rows[0][1].detach())} before any training.")
    again = list(islice(population._batches(SEEDS, 1), 1))
    repeats = check_repeats(population.task, population.replica(0), population.replica(0), batches[0], again[0])
    population.noisy = population.noisy or not repeats
    check_examples(population.task, population.replica(0), population.data)
    for replica, *_ in rows:
        replica.eval()
    outputs = scored(population, rows[0][0])
    check_divisions(population, rows[0][0])
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("always", message=FALLBACK)
        settle_training(population, batches[0], rows)
        settle_scoring(population, rows, outputs)
    slow = {str(w.message).removeprefix(FALLBACK).split(".")[0] for w in said if str(w.message).startswith(FALLBACK)}
    for warning in said:
        if not str(warning.message).startswith(FALLBACK):
            warnings.warn(warning.message, stacklevel=2)
    if slow and population.ways.training is not None:
        population.ways.say_slow(sorted(name.removeprefix("aten::") for name in slow))


def augments_at_random(population: Prepared) -> bool:
    """Whether the task's `augment` draws random numbers, which threads must not do side by side."""
    augment = augmenting(population.task)
    if augment is None:
        return False
    batch = cloned(item(population.data["train"][0], slice(population.task.batch_size)))
    before = drawn()
    augment(batch)
    return drawn() != before


def check_outputs(population: Prepared, batch: Split) -> None:
    """Raises ConfigError if a batch does not suit cross entropy, before a GPU fails on an invalid label."""
    replica = population.replica(0).eval()
    try:
        with torch.no_grad():
            output = replica(Replica.output, cloned(batch[0]))
    except Exception as error:
        pass_on(error)
        return  # the model fails: see `ordinary`
    check_labels(population.task, output, batch[1])
    check_classes(population.task, output.shape[-1], population.data)


def ordinary(population: Prepared, replica: Replica, batch: Split) -> tuple[Tensor, Tensors]:
    """Loss and gradients of a batch as in an ordinary loop; notes whether random numbers are drawn."""
    population.seed_noise(0)
    before = drawn()
    try:
        loss = replica(Replica.loss, *cloned(batch))
        population.noisy |= drawn() != before
        found = gradients(replica, loss)
    except Exception as error:
        pass_on(error)
        size = length(batch[0])
        raise ConfigError(
            f"{about(population.task)}: its model or loss fails on a batch of {size} ({reason(error)})."
        ) from error
    return loss, found


def scored(population: Prepared, replica: Replica) -> Tree:
    """The outputs for the validation split's first examples; raises ConfigError if a split cannot be scored."""
    first: Tree = None
    for name in ("valid", "test"):
        try:
            with torch.no_grad():
                for split in parts(population, name):
                    outputs = outputs_of(population, replica, split[0])
                    check_labels(population.task, outputs, split[1])
                    check_pairing(replica, outputs, split[1])
                    float(replica(Replica.metric, cloned(outputs), cloned(split[1])))
                    first = outputs if first is None else first
        except Exception as error:
            pass_on(error)
            raise ConfigError(
                f"{about(population.task)}: its model or metric fails on the {name} split ({reason(error)})."
            ) from error
    sizes = [x.numel() * x.element_size() for x in tree_leaves(first) if isinstance(x, Tensor)]
    population.output_bytes = sum(sizes) // length(next(parts(population, "valid"))[0])
    return first


def outputs_of(population: Prepared, replica: Replica, inputs: Tree) -> Tree:
    """The outputs of one model, piece by piece."""
    population.seed_noise(0)
    return whole(lambda x: replica(Replica.output, x), inputs, piece(population, inputs), axis=0)


def check_divisions(population: Prepared, replica: Replica) -> None:
    """Raises ConfigError if the metric fails on the validation examples of a seed, and not on those that are given."""
    if population.pool is None:
        return
    inputs, targets = population.pool
    with torch.no_grad():
        x, y = population.data["valid"]
        expected = float(replica(Replica.metric, outputs_of(population, replica, x), cloned(y)))
        for seed in range(DIVISIONS):
            (_, own), problem = population.part("valid", [seed]), "is not a number"
            assert own is not None
            try:
                x, y = item((inputs, targets), own[0])
                value = float(replica(Replica.metric, outputs_of(population, replica, x), y))
            except Exception as error:
                pass_on(error)
                value, problem = math.nan, f"fails ({reason(error)})"
            if math.isnan(value) and not math.isnan(expected):
                raise ConfigError(
                    f"{about(population.task)}: resplit is True, but on some random divisions of the data its metric "
                    f"{problem}, perhaps for a rare class that is missing; validate on more examples, or leave it off."
                )


def parts(population: Prepared, name: str) -> Iterator[Split]:
    """The parts of a split to try: all of it, or its first and last batch if the metric averages over batches."""
    split = population.data[name]
    if not getattr(population.task.metric, "averages", False):
        yield split
        return
    size, count = piece(population, split[0]), length(split[0])
    yield item(split, slice(0, size))
    if count > size:
        yield item(split, slice(count - (count % size or size), count))


def settle_training(population: Prepared, batch: Split, rows: Rows) -> None:
    """Finds the fastest way to call many models that gives the results of calling each alone."""
    problem = differs(population, batch, rows, vectorized)
    if problem is not None:
        slower = seedwise if differs(population, batch, rows, seedwise) is None else None
        population.ways.descend(vectorized, slower, problem)


def differs(population: Prepared, batch: Split, rows: Rows, way: Vectorizer) -> Exception | None:
    """The error of a way to call many models; None if its results are right."""
    low = population.precision is not None
    try:
        if way is vectorized:
            Together(population, 1, SEEDS[:1], way).gradients(*cloned(item(batch, slice(0, 1))))
        models = Together(population, 1, SEEDS, way)
        models.train(True)
        population.seed_noise(0)
        losses, grads, _ = models.gradients(*cloned(batch))
        after = {name: models.buffers[name].clone() for name in population.moving}
        own = [p for p in models.replica.parameters() if p.requires_grad]
        population.seed_noise(0)
        again = models.by_seed(Replica.loss, *cloned(batch))
        if any(g is not None for g in torch.autograd.grad(again.sum(), own, allow_unused=True)):
            return RuntimeError("the loss holds parameters themselves, not their module")
    except Exception as error:
        pass_on(error)
        return error
    for row, (replica, loss, expected) in enumerate(rows):
        if not agree(losses[row], loss, LOW if low else LOSS):
            return RuntimeError("its losses differ from those of one model")
        mine = [torch.zeros(()) if g is None else g[row].flatten() for g in grads]
        theirs = [expected[name].flatten() if name in expected else torch.zeros(()) for name in models.params]
        if not agree(joined(mine), joined(theirs), LOW if low else GRADIENT):
            return RuntimeError("its gradients differ from those of one model")
        buffers = dict(replica.named_buffers())
        if not all(agree(after[name][row], buffers[name], GRADIENT) for name in population.moving):
            return RuntimeError("its buffers differ from those of one model")
    return None


def settle_scoring(population: Prepared, rows: Rows, outputs: Tree) -> None:
    """Finds out whether outputs and metrics can be computed for many models together."""
    if population.ways.training is None:
        return
    models = Together(population, 1, SEEDS[:1], population.ways.training)
    models.train(False)
    replica = rows[0][0]
    x, y = next(parts(population, "valid"))
    size = piece(population, x)
    with torch.no_grad():
        if population.moving:
            for name in population.moving:
                models.buffers[name][0] = dict(replica.named_buffers())[name]
        try:
            population.seed_noise(0)
            found = whole(lambda x: models.at_once(Replica.output, slice(None), x), x, size, axis=1)
        except Exception as error:
            pass_on(error)
            population.ways.refuse_outputs(error)
            return
        if not all(agree(a[0], b, LOW) for a, b in zip(tree_leaves(found), tree_leaves(outputs), strict=True)):
            population.ways.descend(
                population.ways.training, None, RuntimeError("its outputs differ from those of one model")
            )
            return
        try:
            value = models.at_once(Replica.metric, slice(None), found, cloned(y), stacked=True)
            own = float(replica(Replica.metric, cloned(item(found, 0)), cloned(y)))
            if not agree(value[0], torch.tensor(own), LOSS):
                raise RuntimeError("its values differ from those of one model")
        except Exception as error:
            pass_on(error)
            population.ways.refuse_metric(error)


def joined(parts: list[Tensor]) -> Tensor:
    """All tensors as one vector."""
    return torch.cat([x.reshape(-1).double().cpu() for x in parts])


def agree(a: Any, b: Any, tolerance: float) -> bool:
    """Whether two tensors differ by at most a relative tolerance, and are finite in the same places."""
    a, b = (x.detach().double().cpu() for x in (a, b))
    if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return False
    a, b = (torch.where(x.isfinite(), x, 0.0) for x in (a, b))
    return bool((a - b).norm() <= tolerance * b.norm() + 1e-6)

"""The metric of many rows on a split: of all outputs of a row at once, independent of the other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from autoranger.components.core.private import tree_flatten, tree_leaves, tree_unflatten
from autoranger.search.population.models import Alone, Together, pass_on
from autoranger.search.population.prepared import Prepared
from autoranger.search.population.replica import Replica
from autoranger.search.tasks.task import Split
from autoranger.search.tasks.words import reason
from autoranger.search.vectorization import Tree, cloned, item, length

SCORED = 4
"""Most batches that a model gets at once. A transformer's activations for many more do not fit into a CPU's caches:
scoring the text task takes three times as long with fifty."""

OUTPUT_BYTES = 128 << 20
"""Most bytes of outputs that are held at once."""


def score(models: Together | Alone, split: Split, own: Tensor | None = None) -> Tensor:
    """The metric `[rows]` in float64; NaN, and a failure, for a row for which it cannot be computed.

    Args:
        models: of the rows.
        split: examples.
        own: which of them are each seed's, `[S, N]`, by their indices; None if all are everybody's.
    """
    population, size = models.population, piece(models.population, split[0], None if own is None else own.shape[1])
    models.train(False)
    if isinstance(models, Together) and population.ways.outputs:
        try:
            averages = getattr(population.task.metric, "averages", False)
            if averages and population.ways.metric:
                return streamed(models, split, size, own)
            values = torch.empty(len(models), dtype=torch.float64, device=population.device)
            for rows, part in shares(split, own):
                values[rows] = in_groups(models, part, size, range(len(models))[rows])
            return values
        except Exception as error:
            pass_on(error)
            population.ways.refuse_outputs(error)
    values = torch.full((len(models),), torch.nan, dtype=torch.float64)
    for rows, part in shares(split, own):
        for row in range(len(models))[rows]:
            if row not in models.failures:
                population.seed_noise(0)
                values[row] = one(models, row, lambda row=row, part=part: row_outputs(models, row, part, size), part[1])  # type: ignore[misc]
    return values.to(population.device)


def shares(split: Split, own: Tensor | None) -> Iterator[tuple[slice, Split]]:
    """The rows of each seed with its examples; all rows with all of them if these are everybody's."""
    if own is None:
        yield slice(None), split
        return
    for seed, examples in enumerate(own):
        yield slice(seed, None, len(own)), item(split, examples)


def piece(population: Prepared, inputs: Tree, count: int | None = None) -> int:
    """Number of examples that a model gets at once; the same in every chunk, since outputs may depend on it.

    `count` is how many it gets in all, if not all inputs.
    """
    example = sum(x[0].numel() * x.element_size() for x in tree_leaves(inputs))
    most = max(1, min(population.bytes // (max(1, example) * population.rows), SCORED * population.task.batch_size))
    count = count or length(inputs)
    return int(
        -(-count // -(-count // most))
    )  # of much the same size: statistics of a last one of one example are none


def streamed(models: Together, split: Split, size: int, own: Tensor | None) -> Tensor:
    """The metric `[rows]` as a mean over batches, for a metric that is one; of each seed's own examples, if given."""
    models.population.seed_noise(0)
    total = torch.zeros(len(models), dtype=torch.float64, device=models.population.device)
    count = length(split[0]) if own is None else own.shape[1]
    for i in range(0, count, size):
        some = slice(i, i + size)
        if own is None:
            found = models.at_once(Replica.quality, slice(None), *cloned(item(split, some)))
        else:
            found = models.by_seed(Replica.quality, *item(split, own[:, some]))
        total += found.double() * min(size, count - i)
    return total / count


def in_groups(models: Together, split: Split, size: int, among: range) -> Tensor:
    """Any metric of some rows: outputs of as many rows as fit, then their metric, together or one by one."""
    (inputs, targets), population = split, models.population
    values = torch.full((len(among),), torch.nan, dtype=torch.float64, device=population.device)
    together = max(1, OUTPUT_BYTES // max(1, population.output_bytes * length(inputs)))
    for begin in range(0, len(among), together):
        group = among[begin : begin + together]
        rows, places = slice(group.start, group.stop, group.step), slice(begin, begin + len(group))
        population.seed_noise(0)
        outputs = whole(lambda x, rows=rows: models.at_once(Replica.output, rows, x), inputs, size, 1)  # type: ignore[misc]
        if population.ways.metric:
            try:
                found = models.at_once(Replica.metric, rows, outputs, cloned(targets), stacked=True)
                values[places] = found.double()
                continue
            except Exception as error:
                pass_on(error)
                population.ways.refuse_metric(error)
        for i, row in enumerate(group):
            if row not in models.failures:
                values[begin + i] = one(models, row, lambda i=i, outputs=outputs: cloned(item(outputs, i)), targets)  # type: ignore[misc]
    return values


def one(models: Together | Alone, row: int, output: Callable[[], Tree], targets: Tree) -> float:
    """The metric of one row; NaN, and a failure, if it raises an error."""
    try:
        return float(models.alone(row, Replica.metric, output(), cloned(targets)))
    except Exception as error:
        pass_on(error)
        models.failures[row] = reason(error)
        return torch.nan


def row_outputs(models: Together | Alone, row: int, split: Split, size: int) -> Tree:
    """The outputs of one row."""
    return whole(lambda x: models.alone(row, Replica.output, x), split[0], size, 0)


def whole(call: Callable[[Tree], Tree], inputs: Tree, size: int, axis: int) -> Tree:
    """`call` on all inputs, piece by piece; in one call if it does not return one output for each example."""
    parts = []
    for i in range(0, length(inputs), size):
        x = cloned(item(inputs, slice(i, i + size)))
        parts.append(tree_flatten(call(x)))
        if not all(isinstance(y, Tensor) and y.dim() > axis and y.shape[axis] == length(x) for y in parts[-1][0]):
            return call(cloned(inputs))
    leaves = [torch.cat(ys, dim=axis) for ys in zip(*(leaves for leaves, _ in parts), strict=True)]
    return tree_unflatten(leaves, parts[0][1])

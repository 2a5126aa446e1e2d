"""The models of many rows, called together or one by one, with the same losses, gradients and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from autoranger.components.core.errors import ConfigError, DataError
from autoranger.search.population.memory import is_out_of_memory
from autoranger.search.population.prepared import Prepared
from autoranger.search.population.replica import Replica
from autoranger.search.tasks.task import Split
from autoranger.search.tasks.words import about, reason
from autoranger.search.vectorization import Call, Tensors, Tree, Vectorizer, cloned, item, over_candidates

Failures = dict[int, str]
"""The reason of each failed row."""


class Gradients(NamedTuple):
    """The losses and gradients of one batch.

    Args:
        losses: the loss of each row, `[rows]`.
        grads: the gradient of each stack of parameters; None for a stack that no row uses.
        used: which parameters `[rows, stacks]` each row's loss depends on; None if all rows use the same ones.
    """

    losses: Tensor
    grads: list[Tensor | None]
    used: Tensor | None = None


class Together:
    """Rows whose models are called together by `torch.func.vmap`."""

    def __init__(self, population: Prepared, candidates: int, seeds: Sequence[int], way: Vectorizer) -> None:
        self.population, self.seeds, self.failures, self.way = population, seeds, Failures(), way
        params, self.buffers = population.start(candidates, seeds)
        self.params = {name: p.requires_grad_() for name, p in params.items()}
        self.replica = population.replica(seeds[0])
        self.before: Tensors = {}

    def __len__(self) -> int:
        return len(next(iter(self.params.values())))

    @property
    def example(self) -> Replica:
        """One of the models, for a look at its layers."""
        return self.replica

    def state(self) -> Tensors:
        """All tensors of the models that training changes, as they are in memory."""
        return self.params | {name: self.buffers[name] for name in self.population.moving}

    def go_on(self, step: int) -> None:
        """The tensors of `state` are now those after a step."""

    def train(self, mode: bool) -> None:
        """See `torch.nn.Module.train`."""
        self.replica.train(mode)

    def gradients(self, inputs: Tree, targets: Tree) -> Gradients:
        """The losses and gradients on batches `[S, B, ...]`."""
        self.before = {name: self.buffers[name].clone() for name in self.population.moving}
        params = list(self.params.values())
        batch = cloned((inputs, targets))  # should it be needed again, after an error
        losses = self.by_seed(Replica.loss, *batch)
        return Gradients(losses, dense(torch.autograd.grad(losses.sum(), params, allow_unused=True)))

    def call(self, method: Callable[..., Any]) -> Call:
        """A function that calls a method of `Replica` with a row's weights."""

        def call(params: Tensors, buffers: Tensors, x: Tree, y: Tree) -> Any:
            return functional_call(self.replica, (params, buffers), (method, x, y))

        return call

    def at_once(self, method: Callable[..., Any], rows: slice, x: Tree, *y: Tree, stacked: bool = False) -> Tree:
        """Calls a method of `Replica` for some rows: on common data, or each on its own if they are `stacked`."""
        params, buffers = item(self.params, rows), item(self.buffers, rows)

        def call(params: Tensors, buffers: Tensors, x: Tree, y: tuple[Tree, ...]) -> Any:
            return functional_call(self.replica, (params, buffers), (method, x, *y))

        if stacked:
            return torch.func.vmap(call, in_dims=(0, 0, 0, None), randomness="same")(params, buffers, x, y)
        return over_candidates(call)(params, buffers, x, y)

    def by_seed(self, method: Callable[..., Any], x: Tree, y: Tree) -> Tree:
        """Calls a method of `Replica` for all rows, each on the data of its seed, `[S, N, ...]`."""
        return self.way(self.call(method))(self.params, self.buffers, x, y)

    def alone(self, row: int, method: Callable[..., Any], *args: Any) -> Any:
        """Calls a method of `Replica` for one row."""
        return functional_call(self.replica, (item(self.params, row), item(self.buffers, row)), (method, *args))

    def isolate(self, inputs: Tree, targets: Tree, step: int) -> Failures:
        """Finds the rows that make a joint call fail, and restores the buffers from before that call."""
        for name, value in self.before.items():
            self.buffers[name].copy_(value)
        found = Failures()
        for row in range(len(self)):
            if row in self.failures:
                continue
            params = {name: p[row].detach().requires_grad_() for name, p in self.params.items()}
            state = params, cloned(item(self.buffers, row))
            seed = row % len(self.seeds)
            batch = item(inputs, seed), item(targets, seed)
            self.population.seed_noise(step)
            try:
                loss = functional_call(self.replica, state, (Replica.loss, *cloned(batch)))
                torch.autograd.grad(loss, list(params.values()), allow_unused=True)
            except Exception as error:
                pass_on(error)
                blame(self.population, self.seeds[seed], batch, step, error)
                found[row] = reason(error)
        self.failures |= found
        return found


class Alone:
    """Rows whose models are called one after another. Each has a model of its own, its parameters views of the stacks.

    Everything happens as in an ordinary training loop: a model may change its state in place or keep attributes, and
    the backward pass of a row comes before the forward pass of the next one.
    """

    def __init__(self, population: Prepared, candidates: int, seeds: Sequence[int]) -> None:
        self.population, self.seeds, self.failures = population, seeds, Failures()
        self.params, self.buffers = population.start(candidates, seeds)
        self.replicas = [population.replica(seed) for _ in range(candidates) for seed in seeds]
        self.steps = 0
        for row, replica in enumerate(self.replicas):
            own = dict(replica.named_parameters()) | dict(replica.named_buffers())
            for name, stack in self.buffers.items():
                own[name].data.copy_(stack[row])
        self.places = [list(item(self.params, row).values()) for row in range(len(self.replicas))]
        for replica, places in zip(self.replicas, self.places, strict=True):
            for name, place in zip(self.params, places, strict=True):
                replica.trained[name].data = place

    def __len__(self) -> int:
        return len(self.replicas)

    @property
    def example(self) -> Replica:
        """See `Together`."""
        return self.replicas[0]

    def state(self) -> Tensors:
        """See `Together`."""
        own = {f"{row}.{name}": x for row, r in enumerate(self.replicas) for name, x in r.named_buffers()}
        return self.params | own

    def go_on(self, step: int) -> None:
        """See `Together`."""
        self.steps = step

    def train(self, mode: bool) -> None:
        """See `torch.nn.Module.train`."""
        for replica in self.replicas:
            if replica.training != mode:
                replica.train(mode)

    def gradients(self, inputs: Tree, targets: Tree) -> Gradients:
        """The losses and gradients on batches `[S, B, ...]`."""
        losses, found = [], []
        for row, replica in enumerate(self.replicas):
            seed = row % len(self.seeds)
            loss, grads = next(iter(self.params.values())).new_full((), torch.nan), dict[str, Tensor]()
            if row not in self.failures:
                try:
                    loss, grads = self._one(replica, row, item(inputs, seed), item(targets, seed))
                except Exception as error:
                    pass_on(error)
                    batch = item(inputs, seed), item(targets, seed)
                    blame(self.population, self.seeds[seed], batch, self.steps, error)
                    self.failures[row] = reason(error)
            losses.append(loss)
            found.append(grads)
        self.steps += 1
        stacks: list[Tensor | None] = []
        for name, p in self.params.items():
            zero = torch.zeros_like(p[0])
            stacks.append(torch.stack([g.get(name, zero) for g in found]) if any(name in g for g in found) else None)
        used = [[name in g for name in self.params] for g in found]
        uneven = any(any(of) and not all(of) for of in zip(*used, strict=True))
        return Gradients(torch.stack(losses), stacks, torch.tensor(used, device=losses[0].device) if uneven else None)

    def _one(self, replica: Replica, row: int, x: Tree, y: Tree) -> tuple[Tensor, dict[str, Tensor]]:
        """A row's loss, and the gradients of the parameters on which it depends."""
        self.population.seed_noise(self.steps)
        loss = replica(Replica.loss, *cloned((x, y)))
        grads = gradients(replica, loss)
        for name, place in zip(self.params, self.places[row], strict=True):
            p = replica.trained[name]
            if p.data_ptr() != place.data_ptr():  # a model may assign weights anew instead of changing them in place
                place.copy_(p.detach())
                p.data = place
        return loss.detach(), grads

    def alone(self, row: int, method: Callable[..., Any], *args: Any) -> Any:
        """Calls a method of `Replica` for one row."""
        return self.replicas[row](method, *args)


def gradients(replica: Replica, loss: Tensor) -> dict[str, Tensor]:
    """Gradients, by name, of the trained parameters on which a loss depends."""
    if not loss.requires_grad:
        raise ConfigError(
            f"{about(replica.task)}: its loss has no gradient; compute it from the model's output with torch, without "
            "item(), detach() or NumPy."
        )
    grads = dense(torch.autograd.grad(loss, list(replica.trained.values()), allow_unused=True))
    return {name: g for name, g in zip(replica.trained, grads, strict=True) if g is not None}


def dense(grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients, sparse ones made dense."""
    return [g.to_dense() if g is not None and g.is_sparse else g for g in grads]


def pass_on(error: Exception) -> None:
    """Raises an error again if no row is to blame: a user's mistake, or a lack of memory, which smaller chunks cure."""
    if isinstance(error, ConfigError | DataError) or is_out_of_memory(error):
        raise error


def blame(population: Prepared, seed: int, batch: Split, step: int, error: Exception) -> None:
    """Raises ConfigError if an untrained model fails on the batch, too: then the row is not to blame."""
    replica = population.replica(seed).train()
    population.seed_noise(step)
    try:
        gradients(replica, replica(Replica.loss, *cloned(batch)))
    except Exception as again:
        pass_on(again)
        raise ConfigError(
            f"{about(population.task)}: its model or loss fails on the batch of step {step + 1}, before any training, "
            f"too ({reason(again)})."
        ) from error

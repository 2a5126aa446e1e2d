"""Training K candidates × S seeds of one proxy model at once, on common batches and initialisations.

Candidates differ only in the optimizer, so their parameters stack on a leading axis of rows (a row is one candidate
with one seed), `torch.func` runs all models in one call, and one vectorized step updates them. All candidates see the
same batches and, seed by seed, start from the same initialisation: differences between them are paired.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from autoranger.components.component import Stage, registry
from autoranger.components.config import Config
from autoranger.components.errors import ConfigError
from autoranger.components.rows import row_shape
from autoranger.components.step import Step
from autoranger.search.memory import keep_freed_memory
from autoranger.search.tasks.task import Split, Task

Tensors = dict[str, Tensor]
Scores = dict[str, NDArray[np.float64]]
Call = Callable[[Tensors, Tensors, Tensor, Tensor], Tensor]
Vectorizer = Callable[[Call], Call]

POLL = 8
"""Steps between looks for diverged rows: each look makes the host wait for the device."""

ROWS = {"cpu": 256, "cuda": 4096}
"""Most rows in a chunk. On a CPU a chunk should stay in cache; on a GPU it should fill it."""

EVALUATION_BYTES = 1 << 28
"""Most bytes of inputs in one evaluation call."""


class Population:
    """Trains populations of one task's proxy model.

    Args:
        task: data, model, loss and metric; on `task.device`.
        rows: most rows trained at once; chosen for the device where None.
    """

    def __init__(self, task: Task, rows: int | None = None) -> None:
        keep_freed_memory()
        self.task, self.device = task, task.device
        self.rows = rows or ROWS.get(self.device.type, ROWS["cpu"])
        self.data = {name: (x.to(self.device), y.to(self.device)) for name, (x, y) in task.data().items()}
        self.skeleton = self._model(0)
        self._inits: dict[int, tuple[Tensors, Tensors]] = {}
        self.over_rows = self._vectorizer()

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        progress: Callable[[int], None] = lambda done: None,
        report: Callable[[list[Config], Scores], None] = lambda configs, scores: None,
    ) -> Scores:
        """Trains every config with every seed from scratch.

        Args:
            configs: K candidates.
            seeds: S seeds, each of an initialisation and an order of the batches.
            steps: length of the training, for which schedules are scaled.
            splits: which parts of the data to score at the end.
            progress: called with the number of rows × steps done since the last call.
            report: called with each part of the candidates that is done, and its scores.

        Returns:
            For each split the metric `[K, S]`; NaN where a run has diverged.
        """
        scores = {split: np.full((len(configs), len(seeds)), np.nan) for split in splits}
        for chunk in self._chunks(configs, len(seeds)):
            trained = self._train_chunk([configs[k] for k in chunk], seeds, steps, splits, progress)
            report([configs[k] for k in chunk], trained)
            for split, values in trained.items():
                scores[split][chunk] = values
        return scores

    def _train_chunk(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        splits: Sequence[str],
        progress: Callable[[int], None],
    ) -> Scores:
        params, buffers = self._start(len(configs), seeds)
        rows = len(configs) * len(seeds)
        step = Step([c for c in configs for _ in seeds], steps, dtype=torch.float32, device=self.device)
        thetas = [p.detach().view(rows, 1, *row_shape(p.shape[1:])) for p in params.values()]
        for theta, p in zip(thetas, params.values(), strict=True):
            step.add(theta, matrix=p.dim() > 2)
        failed = torch.zeros(rows, dtype=torch.bool, device=self.device)
        alive: Tensor | None = None

        self.skeleton.train()
        with torch.random.fork_rng():
            for t, (inputs, targets) in enumerate(self._batches(len(configs), seeds, steps)):
                losses = self.over_rows(self._loss)(params, buffers, inputs, targets)
                grads = torch.autograd.grad(losses.sum(), list(params.values()))
                failed |= ~losses.detach().isfinite()
                if t % POLL == POLL - 1:
                    progress(rows * POLL)
                    alive = (~failed).view(-1, 1, 1, 1) if failed.any() else None
                    if failed.all():
                        break
                flat = [grad.reshape(theta.shape) for grad, theta in zip(grads, thetas, strict=True)]
                step(thetas, flat, None if alive is None else [alive] * len(thetas))
        progress(rows * (steps % POLL))
        self.skeleton.eval()
        shape = (len(configs), len(seeds))
        diverged = failed.cpu().numpy().reshape(shape)
        return {
            split: np.where(diverged, np.nan, self._score(params, buffers, self.data[split]).reshape(shape))
            for split in splits
        }

    @torch.no_grad()
    def _score(self, params: Tensors, buffers: Tensors, split: Split) -> NDArray[np.float64]:
        """The metric of every row on a split, `[rows]`."""
        inputs, targets = split
        rows = next(iter(params.values())).shape[0]
        size = max(1, EVALUATION_BYTES // (inputs[0].numel() * inputs.element_size() * rows))
        total = torch.zeros(rows, dtype=torch.float64, device=self.device)
        for x, y in zip(torch.split(inputs, size), torch.split(targets, size), strict=True):
            metrics = self.over_rows(self._metric)(params, buffers, x.expand(rows, *x.shape), y.expand(rows, *y.shape))
            total += metrics.double() * len(x)
        return (total / len(inputs)).cpu().numpy()

    def _loss(self, params: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return self.task.loss(functional_call(self.skeleton, (params, buffers), (x,)), y)

    def _metric(self, params: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> Tensor:
        return self.task.metric(functional_call(self.skeleton, (params, buffers), (x,)), y)

    def _batches(self, candidates: int, seeds: Sequence[int], steps: int) -> Iterator[Split]:
        """For each step the batches of all rows: every candidate gets the batch of its seed."""
        inputs, targets = self.data["train"]
        order = torch.stack([batch_order(len(inputs), self.task.batch_size, steps, seed) for seed in seeds])
        order = order.to(self.device)
        augments = type(self.task).augment is not Task.augment
        for t in range(steps):
            batch = inputs[order[:, t]]
            if augments:
                for s, seed in enumerate(seeds):
                    reseed(self.device, seed * 1_000_003 + t)  # the noise depends on seed and step, not on the company
                    batch[s] = self.task.augment(batch[s])
            reseed(self.device, t)
            yield repeat(batch, candidates), repeat(targets[order[:, t]], candidates)

    def _start(self, candidates: int, seeds: Sequence[int]) -> tuple[Tensors, Tensors]:
        """Stacked parameters and buffers at the start: row k·S + s has the initialisation of seed s."""
        inits = [self._init(seed) for seed in seeds]

        params, buffers = (
            {name: repeat(torch.stack([init[part][name] for init in inits]), candidates) for name in inits[0][part]}
            for part in (0, 1)
        )
        return {name: value.requires_grad_() for name, value in params.items()}, buffers

    def _init(self, seed: int) -> tuple[Tensors, Tensors]:
        """Trained parameters of a new model, and everything else in it that differs between seeds."""
        if seed not in self._inits:
            model = self._model(seed)
            params = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
            frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
            self._inits[seed] = params, frozen | dict(model.named_buffers())
        return self._inits[seed]

    def _model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            reseed(torch.device("cpu"), seed)
            return self.task.model().to(self.device)

    def _vectorizer(self) -> Vectorizer:
        """`vmap`, or a loop over rows for a model that vmap refuses; ConfigError for a model that fails by itself."""
        inputs, targets = (part[:4] for part in self.data["train"])
        params, buffers = self._start(1, [0])
        call = (params, buffers, inputs[None], targets[None])
        try:
            losses = looped(self._loss)(*call)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise ConfigError(
                f"task '{self.task.name}': its model or loss fails on a batch of 4 ({type(error).__name__}: {reason})."
            ) from error
        if losses.shape != (1,):
            raise ConfigError(f"task '{self.task.name}': loss must return a scalar, the mean over the batch.")
        try:
            vectorized(self._loss)(*call)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            warnings.warn(f"torch.func.vmap refuses this model ({reason}); training one by one, slower.", stacklevel=2)
            return looped
        return vectorized

    def _chunks(self, configs: Sequence[Config], seeds: int) -> Iterator[list[int]]:
        """Indices of the candidates of each chunk, alike ones together: what a chunk has off costs it nothing."""
        costly = [name for name, cls in registry.items() if cls.stage not in (Stage.RATE, Stage.DECAY)]
        kinds = [tuple(name in c.components for name in costly) for c in configs]
        size = max(1, self.rows // seeds)
        chunk: list[int] = []
        for k in sorted(range(len(configs)), key=lambda k: kinds[k]):
            if len(chunk) == size or (2 * len(chunk) >= size and kinds[k] != kinds[chunk[-1]]):
                yield chunk
                chunk = []
            chunk.append(k)
        if chunk:
            yield chunk


def vectorized(call: Call) -> Call:
    """`call` over a leading axis of rows, at once; all rows draw the same random numbers."""
    return vmap(call, randomness="same")


def looped(call: Call) -> Call:
    """`call` over a leading axis of rows, one by one; all rows draw the same random numbers."""

    def over_rows(params: Tensors, buffers: Tensors, inputs: Tensor, targets: Tensor) -> Tensor:
        results = []
        for row in range(len(inputs)):
            with torch.random.fork_rng():
                mine, others = ({name: value[row] for name, value in part.items()} for part in (params, buffers))
                results.append(call(mine, others, inputs[row], targets[row]))
        return torch.stack(results)

    return over_rows


def repeat(x: Tensor, times: int) -> Tensor:
    """The whole of `x` again and again along its first axis."""
    return x.repeat(times, *[1] * (x.dim() - 1))


def reseed(device: torch.device, seed: int) -> None:
    """Seeds one device's global generator; `torch.manual_seed` would take as long as ten operations on the way."""
    on_cpu = device.type == "cpu"
    generator = torch.default_generator if on_cpu else torch.cuda.default_generators[device.index or 0]
    generator.manual_seed(seed)


def batch_order(examples: int, batch_size: int, steps: int, seed: int) -> Tensor:
    """Indices `[steps, batch_size]` of the batches of one seed: shuffled epochs, one after another."""
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-steps * batch_size // examples)
    order = torch.cat([torch.randperm(examples, generator=generator) for _ in range(epochs)])
    return order[: steps * batch_size].view(steps, batch_size)

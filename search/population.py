"""Training K candidates × S seeds of one proxy model at once, on common batches and initialisations.

Candidates differ only in the optimizer, so their parameters stack on a leading axis of rows (a row is one candidate
with one seed), `torch.func` runs all models in one call, and one vectorized step updates them. All candidates see the
same batches and, seed by seed, start from the same initialisation: differences between them are paired.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from autoranger.components.config import Config
from autoranger.components.errors import ConfigError, DataError, first_line
from autoranger.search.chunk import Chunk, alike
from autoranger.search.memory import free_bytes, is_out_of_memory, keep_freed_memory, release
from autoranger.search.precision import check_precision, full, mixed
from autoranger.search.replay import Replayed
from autoranger.search.rows import Call, Tensors, Vectorizer, batch_order, forked, looped, repeat, reseed, vectorized
from autoranger.search.tasks.task import Split, Task
from autoranger.search.workers import Counted, Workers

Scores = dict[str, NDArray[np.float64]]
Head = Callable[[Tensor, Tensor], Tensor]

MOST_WORKERS = 4
"""Threads that train chunks side by side on a CPU, each with a share of the cores. On two cores two are a quarter
faster than one that splits every operation; many would wait for each other's Python."""

POLL = 8
"""Steps between looks for diverged rows: each look makes the host wait for the device."""

CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 512 << 20}
"""Most bytes of the rows' inputs, and of their parameters, in a chunk."""

CHUNK_ROWS = {"cpu": (8, 512), "cuda": (1, (1 << 16) - 1)}
"""Fewest and most rows of a chunk. On a CPU fewer than 8 do not pay, however large, and more than 512 no longer do
(studies/10_population_throughput); a GPU's grids of blocks end there in their second and third direction."""

SHARE = 32
"""The part of the free memory that these bytes may be: optimizer state, activations and gradients come on top. Where
that is too much after all, a chunk is halved."""


class Population:
    """Trains populations of one task's proxy model.

    Args:
        task: data, model, loss and metric; on `task.device`.
        rows: most rows trained at once; chosen for the device where None.
        precision: in which models run, in training and scoring: torch.bfloat16 for mixed precision as by
            `torch.autocast`, None for float32. Parameters, their gradients and the optimizer's state, loss and metric
            are float32 either way.
        graphs: whether steps are replayed as CUDA graphs. Off by default since nobody has measured what it brings. A
            model that vmap refuses runs without.

    Attributes:
        pulse: called before every pass through the model, by any thread. An exception in it ends what is trained.

    Raises:
        ConfigError: where the task is wrong by itself, or precision or graphs are not for its device.
    """

    def __init__(
        self, task: Task, rows: int | None = None, *, precision: torch.dtype | None = None, graphs: bool = False
    ) -> None:
        keep_freed_memory()
        self.pulse: Callable[[], None] = lambda: None
        if graphs and task.device.type != "cuda":
            raise ConfigError(f"graphs is True, but task '{task.name}' is on {task.device}; CUDA graphs need a GPU.")
        self.task, self.device = task, task.device
        self.bytes = min(CHUNK_BYTES.get(self.device.type, CHUNK_BYTES["cpu"]), free_bytes(self.device) // SHARE)
        self.data = {name: (x.to(self.device), y.to(self.device)) for name, (x, y) in task.data().items()}
        if missing := {"train", "valid", "test"} - self.data.keys():
            names = " and ".join(sorted(missing))
            raise ConfigError(f"task '{task.name}': its data lack {names}; return train, valid and test splits.")
        self._local = threading.local()
        self.rows = rows or self._affordable_rows()
        self._inits: dict[int, tuple[Tensors, Tensors]] = {}
        self.precision = precision
        check_precision(precision, self.device, self._init(0)[0].values())
        self._over_rows, self._noisy = self._probe()
        self.stream: torch.cuda.Stream | None = None
        if graphs and self._over_rows is vectorized:
            self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    @property
    def one_by_one(self) -> bool:
        """Whether models are called for one row after another, since vmap refuses them."""
        return self._over_rows is looped

    @property
    def skeleton(self) -> nn.Module:
        """The module that is called with the rows' parameters; one for each thread, since a call changes it."""
        if not hasattr(self._local, "skeleton"):
            self._local.skeleton = self._model(0)
        return self._local.skeleton  # type: ignore[no-any-return]

    def train(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        *,
        splits: Sequence[str] = ("valid",),
        curve: int = 0,
        progress: Callable[[int], None] = lambda done: None,
        report: Callable[[list[Config], Scores], None] = lambda configs, scores: None,
        among: Sequence[Config] = (),
    ) -> Scores:
        """Trains every config with every seed from scratch.

        Args:
            configs: K candidates.
            seeds: S seeds, each of an initialisation and an order of the batches.
            steps: length of the training, for which schedules are scaled.
            splits: which parts of the data to score at the end.
            curve: how many times to score the validation data on the way, evenly spaced, the end included.
            progress: called with the number of rows × steps done since the last call.
            report: called with each part of the candidates that is done, and its scores.
            among: the candidates of which these are the rest, where some have been trained before: they train in the
                company that they would have had, and come to the same to the last bit.

        Returns:
            For each split the metric `[K, S]`, NaN where a run has diverged; the curve `[K, S, curve]` as "curve".
        """
        scores = {split: np.full((len(configs), len(seeds)), np.nan) for split in splits}
        scores |= {"curve": np.full((len(configs), len(seeds), curve), np.nan)} if curve else {}
        workers = 1 if self._noisy or self.device.type != "cpu" else min(MOST_WORKERS, torch.get_num_threads())
        every = among or configs
        size = max(1, min(self.rows // len(seeds), -(-len(every) // workers)))
        chunks = list(alike(every, size))
        if among:
            left = {config: k for k, config in enumerate(configs)}
            chunks = list(filter(None, ([left[every[k]] for k in chunk if every[k] in left] for chunk in chunks)))
        # Here, since making a model draws from the global generator; those of other seeds are forgotten.
        self._inits = {seed: self._init(seed) for seed in seeds}
        with forked(self.device), Workers(min(workers, len(chunks))) as pool:

            def train(chunk: list[int]) -> Scores:
                chosen, done = [configs[k] for k in chunk], Counted(pool.locked(progress))
                try:
                    return self._train_chunk(chosen, seeds, steps, splits, curve, done, pool.stopped)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                done.take_back()
                release(self.device)
                if len(chunk) == 1:
                    raise ConfigError(
                        f"task '{self.task.name}': one candidate with {len(seeds)} seeds does not fit into the memory "
                        f"of {self.device}; make its model or batch smaller."
                    )
                halves = train(chunk[: len(chunk) // 2]), train(chunk[len(chunk) // 2 :])
                return {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}

            for chunk, trained in pool.map(train, chunks):
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
        curve: int,
        progress: Callable[[int], None],
        stopped: Callable[[], bool],
    ) -> Scores:
        chunk = Chunk(self, configs, seeds, steps)
        advance, alive = self._runner(chunk), chunk.alive
        points = {round(steps * (i + 1) / curve): i for i in range(curve)}
        scores: Scores = {"curve": np.full((len(configs), len(seeds), curve), np.nan)} if curve else {}
        told = 0
        for t, (inputs, targets) in enumerate(self._batches(seeds, steps), start=1):
            advance(inputs, targets)
            if t in points:
                scores["curve"][..., points[t]] = chunk.score(self.data["valid"])
            if t % POLL == 0:
                progress(chunk.rows * POLL)
                told += POLL
                if stopped() or not chunk.poll():
                    break
                if chunk.alive is not alive:  # from now on steps leave rows out
                    advance, alive = self._runner(chunk), chunk.alive
        progress(chunk.rows * (steps - told))
        return scores | {split: chunk.score(self.data[split]) for split in splits}

    def _runner(self, chunk: Chunk) -> Callable[[Tensor, Tensor], None]:
        """How to advance a chunk. The chunk must not hold it: in a cycle, memory would wait for the collector."""
        return chunk.advance if self.stream is None else Replayed(chunk.advance, self.stream)

    def _affordable_rows(self) -> int:
        """Rows of a chunk: as many as `bytes` of inputs and of parameters allow, within bounds."""
        example = self.data["train"][0][0]
        inputs = example.numel() * example.element_size() * self.task.batch_size
        weights = sum(p.numel() * p.element_size() for p in self.skeleton.parameters())
        fewest, most = CHUNK_ROWS.get(self.device.type, CHUNK_ROWS["cpu"])
        return min(max(fewest, self.bytes // max(inputs, weights)), most)

    def _batches(self, seeds: Sequence[int], steps: int) -> Iterator[Split]:
        """For each step the batches `[S, B, ...]` of the seeds, which all candidates share."""
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
            yield batch, targets[order[:, t]]

    def start(self, candidates: int, seeds: Sequence[int]) -> tuple[Tensors, Tensors]:
        """Stacked parameters and buffers at the start: row k·S + s has the initialisation of seed s."""
        inits = [self._init(seed) for seed in seeds]
        params, buffers = (
            {name: repeat(torch.stack([init[part][name] for init in inits]), candidates) for name in inits[0][part]}
            for part in (0, 1)
        )
        return {name: value.requires_grad_() for name, value in params.items()}, buffers

    def apply(self, head: Head, params: Tensors, buffers: Tensors, inputs: Tensor, targets: Tensor) -> Tensor:
        """The task's loss or metric of every row, `[rows]`, on batches `[S, B, ...]`."""
        return self._over_rows(self._one(head))(params, buffers, inputs, targets)

    def _one(self, head: Head) -> Call:
        """The loss or metric of one row."""

        def call(params: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> Tensor:
            self.pulse()
            with mixed(self.device, self.precision):
                output = functional_call(self.skeleton, (params, buffers), (x,))
            return head(full(output, self.precision), y)

        return call

    def _init(self, seed: int) -> tuple[Tensors, Tensors]:
        """Trained parameters of a new model, and everything else in it that differs between seeds."""
        if seed not in self._inits:
            model = self._model(seed)
            params = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
            frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
            self._inits[seed] = params, frozen | dict(model.named_buffers())
        return self._inits[seed]

    def _model(self, seed: int) -> nn.Module:
        with forked(self.device):
            reseed(self.device, seed)
            try:
                return self.task.model().to(self.device)
            except (ConfigError, DataError):
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise ConfigError(f"task '{self.task.name}': its model cannot be made ({reason}).") from error

    def _probe(self) -> tuple[Vectorizer, bool]:
        """How to call the model for many rows, `vmap` or a loop where vmap refuses it; and whether it draws noise.

        ConfigError for a model that fails by itself.
        """
        inputs, targets = (part[:4] for part in self.data["train"])
        loss = self._one(self.task.loss)
        try:
            params, buffers = self.start(1, [0])
            with forked(self.device):
                before = torch.get_rng_state()
                first, others = ({name: x[0] for name, x in part.items()} for part in (params, buffers))
                value = loss(first, others, inputs, targets)
                noisy = not torch.equal(before, torch.get_rng_state()) or type(self.task).augment is not Task.augment
        except Exception as error:
            raise ConfigError(
                f"task '{self.task.name}': its model or loss fails on a batch of 4 "
                f"({type(error).__name__}: {first_line(error)})."
            ) from error
        if not params:
            raise ConfigError(f"task '{self.task.name}': its model has no parameters to train.")
        if value.shape != ():
            raise ConfigError(f"task '{self.task.name}': loss must return a scalar, the mean over the batch.")
        try:
            with forked(self.device):
                vectorized(loss)(params, buffers, inputs[None], targets[None])
        except Exception as error:
            refusal = f"torch.func.vmap refuses this model ({first_line(error)}); training one by one, slower."
            warnings.warn(refusal, stacklevel=2)
            return looped, noisy
        return vectorized, noisy

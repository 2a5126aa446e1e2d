"""Training K candidates × S seeds of one proxy model at once, on common batches and initialisations.

Candidates differ only in the optimizer, so their parameters stack on a leading axis of rows (a row is one candidate
with one seed), `torch.func` runs all models in one call, and one vectorized step updates them. All candidates see the
same batches and, seed by seed, start from the same initialisation: differences between them are paired.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.parameter import UninitializedParameter
from torch.utils._pytree import tree_leaves

from autoranger.components.config import Config
from autoranger.components.errors import ConfigError
from autoranger.search.batches import batches
from autoranger.search.chunk import Chunk, RefusedError, alike
from autoranger.search.memory import free_bytes, is_out_of_memory, release
from autoranger.search.models import pass_on
from autoranger.search.precision import check_precision
from autoranger.search.preflight import preflight
from autoranger.search.replay import CaptureError, Replayed
from autoranger.search.replica import Replica
from autoranger.search.rows import (
    Tensors,
    Tree,
    forked,
    one_path,
    repeat,
    reseed,
    seedwise,
    vectorized,
)
from autoranger.search.tasks.checks import check_settings
from autoranger.search.tasks.data import fitted, splits
from autoranger.search.tasks.task import Split, Task
from autoranger.search.tasks.words import named, too_large
from autoranger.search.ways import Ways
from autoranger.search.workers import Counted, Workers

Scores = dict[str, NDArray[np.float64]]

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
        graphs: whether steps are replayed as CUDA graphs; where None they are on a GPU, if they can be. A model that
            vmap refuses runs without.

    Attributes:
        pulse: called before every pass through the model, by any thread. An exception in it ends what is trained.

    Raises:
        ConfigError: where the task is wrong by itself, or precision or graphs are not for its device.
    """

    def __init__(
        self, task: Task, rows: int | None = None, *, precision: torch.dtype | None = None, graphs: bool | None = None
    ) -> None:
        self.pulse: Callable[[], None] = lambda: None
        if graphs and task.device.type != "cuda":
            raise ConfigError(f"graphs is True, but task '{task.name}' is on {task.device}; CUDA graphs need a GPU.")
        self.task, self.device, self.precision = task, task.device, precision
        self.bytes = min(CHUNK_BYTES.get(self.device.type, CHUNK_BYTES["cpu"]), free_bytes(self.device) // SHARE)
        self.failures: dict[Config, str] = {}
        self._lock, self._inits = threading.RLock(), dict[int, tuple[Tensors, Tensors]]()
        check_settings(task)
        data = splits(task)
        weights = list(self._init(0)[0].values())
        if not weights:
            raise ConfigError(f"{named(task)}: its model has no parameters to train.")
        check_precision(precision, self.device, weights)
        types = {p.dtype for p in weights if p.is_floating_point()}
        self.dtype = types.pop() if len(types) == 1 else None
        self.data: dict[str, Split] = fitted(data, self.device, self.dtype)
        self.rows = rows or self._affordable_rows()
        self.ways, self.noisy = Ways(task), True
        self.graphs = graphs
        self.moving: list[str] = []
        self.output_bytes = 0
        try:
            with forked(self.device), one_path():
                preflight(self)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigError(too_large(self.task, "its model with a batch")) from error
        self.stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda" and graphs is not False:
            self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    @property
    def skeleton(self) -> Replica:
        """A model of the task, its parameters called as those of rows are."""
        return self.replica(0)

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
            For each split the metric `[K, S]`, NaN where a run has failed; the curve `[K, S, curve]` as "curve". Why
            candidates have failed is in `failures`.
        """
        scores = {split: np.full((len(configs), len(seeds)), np.nan) for split in splits}
        scores |= {"curve": np.full((len(configs), len(seeds), curve), np.nan)} if curve else {}
        workers = 1 if self.noisy or self.device.type != "cpu" else min(MOST_WORKERS, torch.get_num_threads())
        every = among or configs
        size = max(1, min(self.rows // len(seeds), -(-len(every) // workers)))
        chunks = list(alike(every, size))
        if among:
            left = {config: k for k, config in enumerate(configs)}
            chunks = list(filter(None, ([left[every[k]] for k in chunk if every[k] in left] for chunk in chunks)))
        # Here, since making a model draws random numbers; those of other seeds are forgotten.
        self._inits = {seed: self._init(seed) for seed in seeds}
        with forked(self.device), one_path(), Workers(min(workers, len(chunks))) as pool:

            def train(chunk: list[int]) -> Scores:
                chosen, done = [configs[k] for k in chunk], Counted(pool.locked(progress))
                way = self.ways.training
                try:
                    return self._train_chunk(chosen, seeds, steps, splits, curve, done, pool.stopped)
                except RefusedError as refusal:
                    if way is None:  # nothing is slower
                        raise (refusal.__cause__ or refusal) from None
                    self.ways.descend(way, seedwise if way is vectorized else None, refusal.__cause__ or refusal)
                    done.take_back()
                    return train(chunk)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                done.take_back()
                release(self.device)
                if len(chunk) == 1:
                    raise ConfigError(too_large(self.task, f"one candidate with {len(seeds)} seeds"))
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
            self.pulse()  # here, too, since what is captured as a graph calls no model
            try:
                advance(inputs, targets)
            except Exception as error:
                if isinstance(error, CaptureError) and self.graphs is None:
                    self.ways.refuse_graphs(error)
                else:
                    pass_on(error)
                    chunk.isolate(inputs, targets, t - 1, error)
                advance, alive = self._runner(chunk), chunk.alive
                self.seed_noise(t - 1)
                self._again(advance, inputs, targets)
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
        scores |= {split: chunk.score(self.data[split]) for split in splits}
        self.failures |= chunk.failures()
        return scores

    @staticmethod
    def _again(advance: Callable[[Tree, Tree], None], inputs: Tree, targets: Tree) -> None:
        """A step that has failed, without the rows that it failed for."""
        try:
            advance(inputs, targets)
        except Exception as error:
            pass_on(error)
            raise RefusedError from error

    def _runner(self, chunk: Chunk) -> Callable[[Tree, Tree], None]:
        """How to advance a chunk. The chunk must not hold it: in a cycle, memory would wait for the collector."""
        if self.stream is None or chunk.way is not vectorized or not self.ways.graphs:
            return chunk.advance
        return Replayed(chunk.advance, self.stream)

    def _affordable_rows(self) -> int:
        """Rows of a chunk: as many as `bytes` of inputs and of parameters allow, within bounds."""
        examples = (x[0] for x in tree_leaves(self.data["train"][0]))
        inputs = sum(x.numel() * x.element_size() for x in examples) * self.task.batch_size
        weights = sum(p.numel() * p.element_size() for part in self._init(0) for p in part.values())
        fewest, most = CHUNK_ROWS.get(self.device.type, CHUNK_ROWS["cpu"])
        return int(min(max(fewest, self.bytes // max(inputs, weights)), most))

    def _batches(self, seeds: Sequence[int], steps: int) -> Iterator[Split]:
        """For each step the batches `[S, B, ...]` of the seeds, which all candidates share."""
        return batches(self.task, self.data["train"], seeds, steps, self.dtype, self.seed_noise)

    def start(self, candidates: int, seeds: Sequence[int]) -> tuple[Tensors, Tensors]:
        """Stacked parameters and buffers at the start: row k·S + s has the initialisation of seed s."""
        inits = [self._init(seed) for seed in seeds]
        params, buffers = (
            {name: repeat(torch.stack([init[part][name] for init in inits]), candidates) for name in inits[0][part]}
            for part in (0, 1)
        )
        return params, buffers

    def seed_noise(self, seed: int) -> None:
        """Has everybody draw the same random numbers from here on."""
        with self._lock:
            reseed(self.device, seed)

    def replica(self, seed: int) -> Replica:
        """The task with the model of a seed."""
        with self._lock, forked(self.device):
            reseed(self.device, seed)
            replica = Replica(self.task, self.precision, lambda: self.pulse())
        if any(isinstance(p, UninitializedParameter) for p in replica.parameters()):
            raise ConfigError(f"{named(self.task)}: its model has lazy layers; call it once on an example in model().")
        return replica

    def _init(self, seed: int) -> tuple[Tensors, Tensors]:
        """Trained parameters of a new model, and everything else in it that differs between seeds."""
        if seed not in self._inits:
            self._inits[seed] = self.replica(seed).weights()
        return self._inits[seed]

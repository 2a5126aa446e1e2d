"""Training K candidates × S seeds of one proxy model at once, on common batches and initialisations.

Candidates differ only in the optimizer, so their parameters stack on a leading axis of rows (a row is one candidate
with one seed), `torch.func` runs all models in one call, and one vectorized step updates them. All candidates see the
same batches and, seed by seed, start from the same initialisation: differences between them are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from autoranger.components.core.config import Config
from autoranger.components.core.errors import ConfigError
from autoranger.search.population.checkpoint import Checkpoints
from autoranger.search.population.chunk import Chunk, RefusedError, in_chunks
from autoranger.search.population.memory import is_out_of_memory, release
from autoranger.search.population.models import pass_on
from autoranger.search.population.preflight import preflight
from autoranger.search.population.prepared import Prepared
from autoranger.search.population.replay import CaptureError, Replayed
from autoranger.search.population.workers import Counted, Workers
from autoranger.search.tasks.task import Task
from autoranger.search.tasks.words import too_large
from autoranger.search.vectorization import Tree, forked, one_path, seedwise, vectorized, without_fallback_warnings

Scores = dict[str, NDArray[np.float64]]

MOST_WORKERS = 4
"""Threads that train chunks side by side on a CPU, each with a share of the cores. On two cores two are a quarter
faster than one that splits every operation; many would wait for each other's Python."""

POLL = 8
"""Steps between looks for diverged rows: each look makes the host wait for the device."""


class Population(Prepared):
    """Trains populations of one task's proxy model.

    Args:
        task: data, model, loss and metric; on `task.device`.
        rows: most rows trained at once; chosen for the device if None.
        precision: of the models in training and scoring: torch.bfloat16 for mixed precision as by
            `torch.autocast`, None for float32. Parameters, their gradients and the optimizer's state, loss and metric
            are float32 either way.
        graphs: whether steps are replayed as CUDA graphs; if None they are on a GPU, if they can be. A model that
            vmap refuses runs without.

    Attributes:
        failures: why candidates have failed.
        checkpoints: of long trainings; None for none. A training that has one goes on from there.

    Raises:
        ConfigError: if the task is invalid, or its device does not support precision or graphs.
    """

    def __init__(
        self, task: Task, rows: int | None = None, *, precision: torch.dtype | None = None, graphs: bool | None = None
    ) -> None:
        if graphs and task.device.type != "cuda":
            raise ConfigError(f"graphs is True, but task '{task.name}' is on {task.device}; CUDA graphs need a GPU.")
        super().__init__(task, rows, precision)
        self.failures: dict[Config, str] = {}
        self.checkpoints: Checkpoints | None = None
        self.graphs = graphs
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
        """Trains every config with every seed, from scratch.

        Args:
            configs: K candidates.
            seeds: S seeds of the initialisation and the order of the batches.
            steps: length of the training, to which schedules are scaled.
            splits: which parts of the data to score at the end.
            curve: how many times to score the validation data on the way, evenly spaced, the end included.
            progress: called with the number of rows × steps done since the last call.
            report: called with the candidates of each chunk that is done, and their scores.
            among: all candidates of the round, if `configs` are only those still to be trained. Chunks are formed as
                for all of them, so that results are the same to the last bit.

        Returns:
            For each split the metric `[K, S]`, NaN if a run has failed; the curve `[K, S, curve]` as "curve". Why
            candidates have failed is in `failures`.
        """
        chunks = self.chunks(configs, seeds, among, self.workers)
        scores = blank(len(configs), len(seeds), splits, curve)
        with self.initialised(seeds), Workers(min(self.workers, len(chunks))) as pool:

            def train(chunk: list[int]) -> Scores:
                chosen = [configs[k] for k in chunk]
                return self.train_chunk(chosen, seeds, steps, splits, curve, pool.locked(progress), pool.stopped)

            for chunk, trained in pool.map(train, chunks):
                report([configs[k] for k in chunk], trained)
                if self.checkpoints:
                    self.checkpoints.drop({configs[k] for k in chunk})
                for split, values in trained.items():
                    scores[split][chunk] = values
        return scores

    @property
    def workers(self) -> int:
        """How many chunks are trained side by side, by threads."""
        return 1 if self.noisy or self.device.type != "cpu" else min(MOST_WORKERS, torch.get_num_threads())

    def chunks(
        self, configs: Sequence[Config], seeds: Sequence[int], among: Sequence[Config], workers: int
    ) -> list[list[int]]:
        """The indices of the candidates of each chunk, where `workers` train side by side; see `train`."""
        every = among or configs
        most = max(1, self.rows // len(seeds))
        rounds = -(-len(every) // (workers * most))
        chunks = list(in_chunks(every, max(1, -(-len(every) // (workers * max(1, rounds))))))
        if not among:
            return chunks
        left = {config: k for k, config in enumerate(configs)}
        return list(filter(None, ([left[every[k]] for k in chunk if every[k] in left] for chunk in chunks)))

    @contextmanager
    def initialised(self, seeds: Sequence[int]) -> Iterator[None]:
        """Within it, chunks of these seeds can be trained, by several threads."""
        # Making a model draws random numbers, which threads must not. Those of other seeds are forgotten.
        self._inits = {seed: self._init(seed) for seed in seeds}
        with without_fallback_warnings(), forked(self.device), one_path():
            yield

    def train_chunk(
        self,
        configs: Sequence[Config],
        seeds: Sequence[int],
        steps: int,
        splits: Sequence[str],
        curve: int,
        progress: Callable[[int], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> Scores:
        """Trains candidates as one chunk, or as smaller ones if memory does not suffice; see `train`.

        Args:
            configs, seeds, steps, splits, curve, progress: see `train`.
            stopped: asked now and then whether to end early.
        """
        way, done = self.ways.training, Counted(progress)

        def again(configs: Sequence[Config]) -> Scores:
            return self.train_chunk(configs, seeds, steps, splits, curve, progress, stopped)

        try:
            return self._train_chunk(configs, seeds, steps, splits, curve, done, stopped)
        except RefusedError as refusal:
            if way is None:  # nothing is slower
                raise (refusal.__cause__ or refusal) from None
            self.ways.descend(way, seedwise if way is vectorized else None, refusal.__cause__ or refusal)
            done.take_back()
            return again(configs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        done.take_back()
        release(self.device)
        if len(configs) == 1:
            raise ConfigError(too_large(self.task, f"one candidate with {len(seeds)} seeds"))
        halves = again(configs[: len(configs) // 2]), again(configs[len(configs) // 2 :])
        return {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}

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
        points = {round(steps * (i + 1) / curve): i for i in range(curve)}
        on_the_way = torch.full((len(configs), len(seeds), curve), torch.nan, dtype=torch.float64)
        scores: Scores = {"curve": on_the_way.numpy()} if curve else {}
        checkpoint = self.checkpoints and self.checkpoints.of(chunk, steps, curve)
        told = begun = checkpoint.read(chunk, on_the_way) if checkpoint else 0
        advance, alive = self._runner(chunk), chunk.alive
        for t, (inputs, targets) in enumerate(self._batches(seeds, steps, begun), start=begun + 1):
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
                scores["curve"][..., points[t]] = chunk.score("valid")
            if t % POLL == 0:
                progress(chunk.rows * POLL)
                told += POLL
                if stopped() or not chunk.poll():
                    break
                if checkpoint and checkpoint.due:
                    checkpoint.write(chunk, t, on_the_way)
                if chunk.alive is not alive:  # from now on steps leave rows out
                    advance, alive = self._runner(chunk), chunk.alive
        progress(chunk.rows * (steps - told))
        scores |= {split: chunk.score(split) for split in splits}
        self.failures |= chunk.failures()
        return scores

    @staticmethod
    def _again(advance: Callable[[Tree, Tree], None], inputs: Tree, targets: Tree) -> None:
        """Repeats a step that has failed, without the rows that made it fail."""
        try:
            advance(inputs, targets)
        except Exception as error:
            pass_on(error)
            raise RefusedError from error

    def _runner(self, chunk: Chunk) -> Callable[[Tree, Tree], None]:
        """The function that advances a chunk. The chunk must not refer to it: memory in a cycle is freed late."""
        if self.stream is None or chunk.way is not vectorized or not self.ways.graphs:
            return chunk.advance
        return Replayed(chunk.advance, self.stream)


def blank(candidates: int, seeds: int, splits: Sequence[str], curve: int) -> Scores:
    """Scores of nothing yet: NaN everywhere."""
    scores = {split: np.full((candidates, seeds), np.nan) for split in splits}
    return scores | ({"curve": np.full((candidates, seeds, curve), np.nan)} if curve else {})

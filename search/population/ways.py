"""How a population calls its rows' models: together if vmap can, otherwise slower, with a warning."""

from __future__ import annotations

import threading
import warnings

from autoranger.search.population.replay import CaptureError
from autoranger.search.tasks.task import Task
from autoranger.search.tasks.words import about, reason
from autoranger.search.vectorization import Vectorizer, vectorized


class Ways:
    """How models are called. What turns out not to work is replaced by a slower way with the same results.

    Args:
        task: for messages.

    Attributes:
        training: how losses and gradients are computed; None for one row after another, each with its own model.
        outputs: whether models are scored together.
        metric: whether metrics are computed together.
        graphs: whether steps are replayed as CUDA graphs, where there are any.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.training: Vectorizer | None = vectorized
        self.outputs = self.metric = self.graphs = True
        self._lock = threading.Lock()

    def descend(self, way: Vectorizer, slower: Vectorizer | None, error: BaseException) -> None:
        """Trains in a slower way from now on, unless another thread has already changed `way`."""
        with self._lock:
            if self.training is way:
                self.training = slower
                how = "one by one" if slower is None else "seed by seed"
                self._say(f"torch.func.vmap refuses this model or loss ({reason(error)}); training {how}, slower.")

    def refuse_outputs(self, error: Exception) -> None:
        """Scores models one by one from now on."""
        with self._lock:
            if self.outputs:
                self.outputs = False
                self._say(f"torch.func.vmap refuses this model in eval mode ({reason(error)}); scoring one by one.")

    def refuse_metric(self, error: Exception) -> None:
        """Computes metrics one by one from now on."""
        with self._lock:
            if self.metric:
                self.metric = False
                self._say(f"torch.func.vmap refuses this metric ({reason(error)}); computing it for one after another.")

    def refuse_graphs(self, error: CaptureError) -> None:
        """Calls every operation of a step from Python from now on."""
        with self._lock:
            if self.graphs:
                self.graphs = False
                self._say(f"a step cannot be a CUDA graph ({error.why}); training without graphs, slower.")

    def _say(self, sentence: str) -> None:
        warnings.warn(f"{about(self.task)}: {sentence}", stacklevel=3)

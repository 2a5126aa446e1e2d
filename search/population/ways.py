"""How a population calls its rows' models: together if vmap can, otherwise slower, with a warning."""

from __future__ import annotations

import re
import threading
import warnings

from autoranger.search.population.replay import CaptureError
from autoranger.search.tasks.task import Task
from autoranger.search.tasks.words import about, reason, scene
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
                refused = f"torch.func.vmap refuses this model or loss ({cause(error)}), so it trains"
                if slower is None:
                    self._say(f"{refused} one by one, slower", error)
                else:
                    self._say(f"{refused} seed by seed, slower", error)

    def refuse_outputs(self, error: Exception) -> None:
        """Scores models one by one from now on."""
        with self._lock:
            if self.outputs:
                self.outputs = False
                self._say(
                    f"torch.func.vmap refuses this model in eval mode ({cause(error)}); scoring one by one", error
                )

    def refuse_metric(self, error: Exception) -> None:
        """Computes metrics one by one from now on."""
        with self._lock:
            if self.metric:
                self.metric = False
                if re.search(OUTSIDE, str(error)):
                    self._say("its metric uses more than torch, so it is computed for one candidate after another")
                    return
                self._say(
                    f"torch.func.vmap refuses this metric ({cause(error)}); computing it for one after another", error
                )

    def say_slow(self, operations: list[str]) -> None:
        """Warns of operations that vmap calls for one row after another."""
        error = RuntimeError(" ".join(f"aten::{name}" for name in operations))
        self._say(f"torch.func.vmap calls {' and '.join(operations)} for one candidate after another, slower", error)

    def refuse_graphs(self, error: CaptureError) -> None:
        """Calls every operation of a step from Python from now on."""
        with self._lock:
            if self.graphs:
                self.graphs = False
                self._say(f"a step cannot be a CUDA graph ({error.why}); training without graphs, slower")

    def _say(self, sentence: str, error: BaseException | None = None) -> None:
        """A warning, with what it would take to avoid it."""
        fix = "" if error is None else remedy(error)
        warnings.warn(f"{about(self.task)}: {sentence}{fix and '; to avoid that, '}{fix}.", stacklevel=3)


OUTSIDE = r"data pointer|\.numpy\(\)|numpy|storage"
"""What errors say of a call that leaves torch for NumPy or another library."""

REMEDIES = {
    r"aten::(lstm|gru|rnn|_pack_padded|_thnn)|rnn\.py": (
        "write the recurrence with linear layers, in a loop over time"
    ),
    "checkpoint": "leave checkpointing out, which a small model does not need",
    "accessing `data`": "change weights in place under torch.no_grad(), not by their data",
    r"\.item\(\)|data-dependent|Boolean value|bool\(\)": (
        "replace item(), float() and if by operations on tensors, such as torch.where"
    ),
    OUTSIDE: "compute it with torch alone, without NumPy or another library",
    r"masked_select|nonzero|dynamic shape|differently shaped": (
        "use torch.where or multiply by the mask, instead of selecting by it"
    ),
    r"inplace arithmetic|in-place": "write x = x + y instead of changing a tensor in place",
    "generate_vmap_rule|vmap staticmethod": "give the autograd.Function a vmap rule",
    "setup_context": "give the autograd.Function a setup_context",
    r"differ from those of one model": (
        "keep what changes in buffers, and change them in place; attributes are not the candidate's own"
    ),
    r"holds parameters themselves": "let the loss keep the model, and ask it for its parameters",
}
"""What would let vmap call a model, by its error or where that was raised."""


def remedy(error: BaseException) -> str:
    """What would let vmap call a model; empty if unknown."""
    words = f"{error} {scene(error)}"
    return next((fix for pattern, fix in REMEDIES.items() if re.search(pattern, words)), "")


def cause(error: BaseException) -> str:
    """The reason of an error, without vmap's advice to report it."""
    return re.sub(r"(?<=\w)\W+(We (don't|cannot|could not)|[Pp]lease) .*?(?=, at \S+:\d+$|$)", "", reason(error))

"""CUDA graphs: the device's work in a call, captured once and then replayed without Python."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from autoranger.components.core.errors import ConfigError, DataError, reason
from autoranger.components.core.private import tree_flatten, tree_map
from autoranger.search.population.memory import is_out_of_memory
from autoranger.search.vectorization import Tree


class CaptureError(ConfigError):
    """A call that cannot be captured, since it looks at a value, for example; `why` has the reason."""

    def __init__(self, why: str) -> None:
        super().__init__(f"a step cannot be a CUDA graph ({why}); train without graphs.")
        self.why = why


class Replayed:
    """A function of tensors (or tuples and dicts of them) which changes others in place, as a replayed CUDA graph.

    The first calls run as they are, on the stream of the capture, where libraries then have what they set up for each
    stream (torch's notes on whole-network capture). They count like all others, and so does the call of the capture,
    which runs nothing: it is followed by a replay. Random numbers follow the generator's seed at each replay.

    Args:
        call: what to capture. It must not look at a value. Besides its arguments it may read and change only what
            stays where it is in memory; when anything else about it changes, make another `Replayed`.
        stream: where to warm up and capture, not the device's default one. Several may share it, one after another.
        warmups: how many calls run as they are, at least one.

    Raises:
        CaptureError: in the call of the capture, which has changed nothing then.
    """

    def __init__(self, call: Callable[..., None], stream: torch.cuda.Stream, warmups: int = 3) -> None:
        self._call, self._stream, self._left = call, stream, warmups
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tree, ...] = ()

    def __call__(self, *inputs: Tree) -> None:
        """`call(*inputs)`; inputs of other shapes or types than those of the capture run as they are."""
        leaves = tree_flatten(inputs)[0]
        with torch.cuda.device(leaves[0].device):
            if self._left:
                self._left -= 1
                self._run(inputs)
                return
            if self._graph is None:
                self._graph = self._capture(inputs)
            else:
                held = tree_flatten(self._inputs)[0]
                if [(x.shape, x.dtype) for x in held] != [(x.shape, x.dtype) for x in leaves]:
                    self._run(inputs)
                    return
                for old, new in zip(held, leaves, strict=True):
                    old.copy_(new)
            self._graph.replay()

    def _run(self, inputs: tuple[Tree, ...]) -> None:
        """The call as it is. The streams wait for each other: neither reuses memory which the other still reads."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._call(*inputs)
        current.wait_stream(self._stream)

    def _capture(self, inputs: tuple[Tree, ...]) -> torch.cuda.CUDAGraph:
        self._inputs = tree_map(Tensor.clone, inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context returns from the stream where `graph` fails to, which it does when a capture has failed.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
                self._call(*self._inputs)
        except Exception as error:
            release_noise(tree_flatten(self._inputs)[0][0].device)
            if is_out_of_memory(error) or isinstance(error, ConfigError | DataError):
                raise
            raise CaptureError(reason(error)) from error
        return graph


def release_noise(device: torch.device) -> None:
    """Lets torch draw random numbers again after a failed capture, whose end its generator still waits for."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(generator.clone_state())

"""Work done in this very process, item by item: if other processes cannot have it, or for a debugger."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch

from autoranger.search.engine.engine import Item, Listener, Work
from autoranger.search.vectorization import forked, on_gpu


class Inline:
    """An `Engine` without workers: what crashes or hangs takes the search with it.

    Args:
        work: what is done.
    """

    size, others, speed = 1, 0, 1.0

    def __init__(self, work: Work) -> None:
        self.work = work

    def exchange(self) -> bool:
        """See `Engine`."""
        return False

    def run(self, items: Sequence[Item], listener: Listener) -> Generator[tuple[Item, Any], None, None]:
        """See `Engine`."""
        for item in items:
            listener.pulse()
            listener.begun(item)

            def tell(message: Any, item: Item = item) -> None:
                listener.pulse()
                if message is not None:
                    listener.reported(item, *message)

            with forked(torch.device("cuda" if on_gpu() else "cpu")):
                found = self.work(item, 0, tell)
            yield item, found

    def close(self) -> None:
        """See `Engine`."""

"""Ray's actors as workers, on one machine or on many; needs the extra `ray`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from autoranger.components.core.errors import ConfigError, DataError, first_line
from autoranger.search.engine.engine import Done, Ready, Refused, Work, Worker
from autoranger.search.tasks.words import reason


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what each worker needs of it.

    Args:
        address: of a running cluster, or "auto"; None takes that of `RAY_ADDRESS`, or begins one on this machine.
        size: how many workers; None for as many as fit.
        cpus, gpus: that each worker needs.
    """

    address: str | None = None
    size: int | None = None
    cpus: int = 1
    gpus: float = 0.0


class Doer:
    """What an actor is: it has a copy of the work, and does items.

    Args:
        work: the work.
        number: of the worker.
        threads: of torch.
    """

    def __init__(self, work: Work, number: int, threads: int) -> None:
        self.work, self.number, self.threads = work, number, threads

    def prepare(self) -> str:
        """Prepares the work; returns why that fails, empty if it does not."""
        torch.set_num_threads(self.threads)
        try:
            self.work.prepare(self.number)
        except Exception as error:
            return f"an actor cannot prepare what it is to do ({reason(error)})."
        return ""

    def do(self, item: Any) -> Any:
        """Does an item."""
        return self.work(item, self.number, lambda message: None)


class Actor(Worker):
    """An actor.

    Args:
        handle: Ray's.
        number: its number.
    """

    away = True

    def __init__(self, handle: Any, number: int) -> None:
        super().__init__(number)
        self.handle, self.pending, self.how = handle, handle.prepare.remote(), "it was stopped"

    def send(self, item: Any) -> None:
        """See `Worker`."""
        self.pending = self.handle.do.remote(item)

    def messages(self) -> list[Any]:
        """See `Worker`. An actor says nothing before it is done; that its process lives is Ray's business to see."""
        ray: Any = import_module("ray")
        if self.pending is None:
            return []
        done, _ = ray.wait([self.pending], timeout=0)
        if not done:
            return [None]
        try:
            found = ray.get(self.pending)
        except ray.exceptions.RayActorError as error:
            self.how = first_line(error)
            raise EOFError from error
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from error
        self.pending = None
        if self.ready:
            return [Done(found)]
        return [Refused(found)] if found else [Ready()]

    def end(self, grace: float = 0.0) -> str:
        """See `Worker`."""
        with suppress(Exception):
            import_module("ray").kill(self.handle)
        return self.how


class Actors:
    """A `Source` of actors. Ray begins them where there is room; one that is lost is replaced.

    Args:
        work: what they do.
        cluster: where.

    Raises:
        ConfigError: if Ray is not installed.
        DataError: if there is no cluster at the address.
    """

    here = False

    def __init__(self, work: Work, cluster: Cluster) -> None:
        cpus, gpus, address = cluster.cpus, cluster.gpus, cluster.address
        try:
            ray: Any = import_module("ray")
        except ImportError:
            raise ConfigError(
                "--engine ray needs Ray, which is not installed (pip install 'autoranger[ray]')."
            ) from None
        if not ray.is_initialized():
            try:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise DataError(
                    f"there is no Ray cluster at {address} ({first_line(error)}); begin one with  ray start --head."
                ) from None
        there = ray.cluster_resources()
        fit = int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 1) / cpus)
        if fit < 1:
            raise ConfigError(
                f"no worker fits: each needs {cpus} CPUs and {gpus:g} GPUs, and the cluster has "
                f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g}."
            )
        self.size = cluster.size or fit
        self.free, self.work, self.threads = set(range(self.size)), ray.put(work), cpus
        self.kind = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Doer)

    def recruit(self, wanted: int) -> Sequence[Worker]:
        """See `Source`."""
        numbers = sorted(self.free)[: max(0, wanted)]
        self.free -= set(numbers)
        return [Actor(self.kind.remote(self.work, number, self.threads), number) for number in numbers]

    def release(self, worker: Worker) -> None:
        """See `Source`."""
        self.free.add(worker.number)

    def check(self, worker: Worker, how: str) -> None:
        """See `Source`."""

    def close(self) -> None:
        """See `Source`."""

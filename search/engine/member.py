"""The life of a worker that has joined a search: it takes items from its mailbox, and leaves what came of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from autoranger.search.engine.board import ASK, BEAT, OVER, board
from autoranger.search.engine.engine import Engine, Lost
from autoranger.search.storage.process import this_process
from autoranger.search.storage.storage import writing


class Dismissed(BaseException):
    """The search has ended, or goes on without this worker. Not an Exception, so that user code does not catch it."""


class Member:
    """A worker that has joined a search.

    Args:
        storage: of the search.
        study: its name.
        read: makes an item of plain data.
        engine: does items, one at a time.
    """

    def __init__(self, storage: BaseStorage, study: str, read: Callable[[Any], Any], engine: Engine) -> None:
        self.storage, self.read, self.engine = storage, read, engine
        self.board = board(storage, study)
        trial = create_trial(state=TrialState.RUNNING, user_attrs={"process": this_process()})
        with writing():
            self.trial = storage.create_new_trial(self.board, trial)
        self.number, self.done, self.beats, self.heard = 0, 0, 0, 0.0
        self.told: Sequence[Any] = ()
        self.left = threading.Event()

    def serve(self, tell: Callable[[str], None] = lambda sentence: None) -> int:
        """Does items until the search is over, and returns how many; told in words what it does."""
        with self._beating():
            while (data := self._next()) is not None:
                item = self.read(data)
                tell(f"item {self.number}: {item.summary}")
                try:
                    with closing(self.engine.run([item], self)) as run:
                        ((_, found),) = run
                except Dismissed:
                    continue
                answer = {"lost": found.why} if isinstance(found, Lost) else {"found": found.to_data()}
                self._write("answer", {"number": self.number} | answer)
                self.done += 1
        return self.done

    def close(self) -> None:
        """Leaves the search."""
        self.engine.close()
        if not self.storage.get_trial(self.trial).state.is_finished():
            with writing():
                self.storage.set_trial_state_values(self.trial, TrialState.FAIL)

    def begun(self, item: Any) -> None:
        """See `Listener`."""
        self.told = ()

    def reported(self, item: Any, *message: Any) -> None:
        """See `Listener`."""
        self.told = message

    def pulse(self) -> None:
        """See `Listener`. Raises Dismissed if nobody waits for the item any more."""
        if time.monotonic() - self.heard > BEAT:
            self.heard = time.monotonic()
            if self._dismissed():
                raise Dismissed

    def _dismissed(self) -> bool:
        over: bool = self.storage.get_study_user_attrs(self.board).get(OVER, False)
        return over or self.storage.get_trial(self.trial).state.is_finished()

    def _next(self) -> Any:
        """The next item, once there is one; None at the end."""
        while not self._dismissed():
            item = self.storage.get_trial(self.trial).user_attrs.get("item", {"number": 0})
            if item["number"] > self.number:
                self.number = item["number"]
                return item["data"]
            time.sleep(ASK)
        return None

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Within it, signs of life are written, by a thread of their own."""

        def beat() -> None:
            while True:
                self.beats += 1
                self._write("beat", {"count": self.beats, "number": self.number, "told": self.told})
                if self.left.wait(BEAT):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.left.set()
            thread.join()

    def _write(self, name: str, fact: Any) -> None:
        """Writes into the mailbox, unless it has been closed."""
        try:
            with writing():
                self.storage.set_trial_user_attr(self.trial, name, fact)
        except UpdateFinishedTrialError:
            pass

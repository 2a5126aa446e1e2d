"""Workers that come and go: each has a mailbox in the search's own storage, where it gets items and leaves results.

A mailbox is a trial that runs for as long as its worker, of the study with "-workers" after the search's name. The
search writes the attribute `item`; the worker writes `answer`, and every few seconds `beat` with the last thing that
its work told. All is JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from autoranger.components.core.errors import DataError
from autoranger.search.engine.engine import Done, Lost, Ready, Worker
from autoranger.search.storage.process import ended
from autoranger.search.storage.storage import writing

WORKERS = "-workers"
"""The suffix of the name of a study with the mailboxes of a search's workers."""

OVER = "over"
"""The attribute of such a study that tells workers to leave."""

LOOK, ASK = 2.0, 0.5
"""Seconds between looks for new workers, and between looks into a mailbox."""

BEAT, SILENT = 5.0, 45.0
"""Seconds between two signs of life of a worker, and after which one without them counts as gone."""


class Mailbox(Worker):
    """A worker that has joined, as the search sees it.

    Args:
        storage: of the study.
        number: of the trial in the study.
        trial: the trial's id.
        read: makes a result of plain data.
    """

    away = True

    def __init__(self, storage: BaseStorage, number: int, trial: int, read: Callable[[Any], Any]) -> None:
        super().__init__(number)
        self.storage, self.trial, self.read = storage, trial, read
        self.sent = self.storage.get_trial(trial).user_attrs.get("item", {}).get("number", 0)
        self.beat, self.told = dict[str, Any](), list[Any]()
        self.alive = time.monotonic()
        self.asked = self.alive - ASK
        self.how = "it has left"

    def send(self, item: Any) -> None:
        """See `Worker`."""
        self.sent, self.told = self.sent + 1, []
        try:
            with writing():
                self.storage.set_trial_user_attr(self.trial, "item", {"number": self.sent, "data": item.to_data()})
        except optuna.exceptions.UpdateFinishedTrialError as error:
            raise OSError("the worker has left") from error

    def messages(self) -> list[Any]:
        """See `Worker`."""
        now = time.monotonic()
        if now - self.asked < ASK:
            return []
        self.alive += max(0.0, now - self.asked - BEAT)  # nobody is silent whom nobody has asked, as without a database
        self.asked = now
        trial = self.storage.get_trial(self.trial)
        noted = trial.user_attrs
        answer, gone = noted.get("answer", {}), ended(noted.get("process", ""))
        if self.item is not None and answer.get("number") == self.sent:
            lost = answer.get("lost")
            return [Done(Lost(lost, now - self.began) if lost else self.read(answer["found"]))]
        if trial.state.is_finished():
            raise EOFError
        if gone or now - self.alive > SILENT:
            self.how = "nothing has been heard of it for some time"
            raise EOFError
        return self._beaten(noted.get("beat", {}), alive=gone is False)

    def _beaten(self, beat: dict[str, Any], *, alive: bool) -> list[Any]:
        """The messages in a sign of life, if it is a new one; of a worker known to be alive the first sign will do."""
        messages = list[Any]()
        if not self.ready and (alive or (self.beat and beat != self.beat)):
            messages.append(Ready())
        if beat != self.beat:
            self.beat, self.alive = beat, time.monotonic()
            if beat.get("number") == self.sent and self.item is not None:
                messages.append(tuple(beat["told"]) if beat["told"] != self.told else None)
                self.told = beat["told"]
        return messages

    def end(self, grace: float = 0.0) -> str:
        """See `Worker`. One that is there but not wanted any more is told so by the state of its trial."""
        if not self.storage.get_trial(self.trial).state.is_finished():
            with writing():
                self.storage.set_trial_state_values(self.trial, TrialState.FAIL)
        return self.how


class Board:
    """A `Source` of workers that join a search.

    Args:
        storage: of the search.
        study: its name.
        read: makes a result of plain data.
    """

    here = False

    def __init__(self, storage: BaseStorage, study: str, read: Callable[[Any], Any]) -> None:
        self.storage, self.name, self.read = storage, study + WORKERS, read
        self.looked = -LOOK
        self.id: int | None = None
        self.known = set[int]()
        self.waiting = list[Mailbox]()
        self.working = set[Worker]()
        self._look()

    @property
    def size(self) -> int:
        """See `Source`."""
        self._look()
        return len(self.waiting) + len(self.working)

    def recruit(self, wanted: int) -> Sequence[Worker]:
        """See `Source`."""
        self._look()
        new, self.waiting = self.waiting[: max(0, wanted)], self.waiting[max(0, wanted) :]
        self.working |= {*new}
        return new

    def release(self, worker: Worker) -> None:
        """See `Source`."""
        self.working.discard(worker)

    def check(self, worker: Worker, how: str) -> None:
        """See `Source`."""

    def close(self) -> None:
        """See `Source`."""
        if self.id is not None:
            with writing():
                self.storage.set_study_user_attr(self.id, OVER, True)

    def _look(self) -> None:
        """Looks for workers that have joined."""
        if time.monotonic() - self.looked < LOOK:
            return
        self.looked = time.monotonic()
        if self.id is None:
            try:
                self.id = self.storage.get_study_id_from_name(self.name)
            except KeyError:
                return
            with writing():
                self.storage.set_study_user_attr(self.id, OVER, False)
        for trial in self.storage.get_all_trials(self.id, deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in self.known:
                self.known.add(trial.number)
                number = self.storage.get_trial_id_from_study_id_trial_number(self.id, trial.number)
                self.waiting.append(Mailbox(self.storage, trial.number, number, self.read))


def board(storage: BaseStorage, study: str) -> int:
    """The id of the study of a search's mailboxes, which is made if there is none. Raises DataError if it cannot be."""
    name = study + WORKERS
    with writing():
        try:
            return storage.create_new_study((optuna.study.StudyDirection.MAXIMIZE,), name)
        except optuna.exceptions.DuplicatedStudyError:
            return storage.get_study_id_from_name(name)
        except Exception as error:
            raise DataError(f"cannot join the search: {error}.") from error

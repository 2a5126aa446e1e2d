"""One search of a user: the name of its study, its storage, its progress on the terminal, and the file it writes."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from autoranger.arguments import check_out, keep_previous
from autoranger.components.core.errors import ConfigError, DataError
from autoranger.display import Display
from autoranger.report.sentences import note
from autoranger.search.commands import program
from autoranger.search.population.checkpoint import Checkpoints
from autoranger.search.progress import Progress
from autoranger.search.storage.database import is_url, shown
from autoranger.search.storage.notes import write_note
from autoranger.search.storage.storage import JOURNAL, open_storage
from autoranger.search.verdict.outcome import Outcome
from autoranger.terminal import Aside, patience


class Session:
    """One search, from its name to its file.

    Args:
        kind: name of the task or function; a study without a name is called after it and the time.
        out_path: file for the config. None writes none.
        storage: database URL or journal file. Default: `autoranger.journal`. A URL is shown without its password.
        study: name of the study. Default: `kind` and the time.
        resume: whether to continue the study of that name.

    Raises:
        ConfigError: if the file cannot be written, or `resume` is set without `study`.
        DataError: if the storage cannot be opened.
    """

    def __init__(
        self, kind: str, out_path: Path | None, storage: str | None, study: str | None, *, resume: bool
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if out_path is not None:
            check_out(out_path)
        if resume and study is None:
            raise ConfigError("--resume needs the --study to continue; its name was printed when the search began.")
        # Searches that begin in the same second have names of their own, and so have those around a clock set back.
        self.name = study or f"{kind}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        self.place, self.out_path, self._given = shown(storage or JOURNAL), out_path, storage
        self.storage = open_storage(storage)

    @property
    def begun(self) -> bool:
        """Whether the study exists, so that the search can be resumed."""
        return self.name in optuna.get_all_study_names(self.storage)

    @property
    def checkpoints(self) -> Checkpoints:
        """Those of long trainings: in a folder beside the journal, or here if the storage is a database."""
        journal = None if self._given is not None and is_url(self._given) else self._given or JOURNAL
        return Checkpoints.beside(journal, self.name)

    def run(self, search: Callable[[BaseStorage, str, Progress], Outcome], console: Aside, device: str = "") -> Outcome:
        """Runs the search, shows its progress on a console, and returns its outcome."""
        title = f"study '{self.name}' in {self.place}" + (f", on {device}" if device else "")
        with patience() as kept, Display(console, title, kept) as display:
            outcome = search(self.storage, self.name, display)
        write_note(self.storage, self.name, note(outcome, self.report_command))
        return outcome

    def save(self, outcome: Outcome, console: Aside) -> None:
        """Writes the config to `out_path`, if there is one. A config that it replaces is kept as a backup."""
        if self.out_path is None:
            return
        try:
            if previous := keep_previous(self.out_path):
                console.print(
                    f"the config that was in {self.out_path} is now in {previous}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
            outcome.config.save(self.out_path, outcome.evidence.to_dict())
        except DataError as error:
            raise DataError(
                f"{error} What was found is in the study: {self.report_command} --out FOLDER writes it."
            ) from None

    @property
    def report_command(self) -> str:
        """The command that reports the study."""
        named = ["--storage", self.place] if self._given else []
        return f"{program()} {shlex.join(['report', self.name, *named])}"

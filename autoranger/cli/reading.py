"""Commands that read what searches have found: `report`, `studies` and `watch`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from autoranger.cli.console import err, out, print_json, print_table
from autoranger.cli.options import Json, Latest, Place


def report(
    study: Latest = None,
    storage: Place = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for a page, figures, the finalists' configs and attribution.json; or X.html: the page.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Report what a search found: the verdict, the finalists, and what each component contributes.

    The report is made from the study; nothing is trained. A search that runs or was interrupted is reported as far as
    it got.

    **Examples**

        autoranger report
        autoranger report digits-20260101-120000
        autoranger report mine --storage sqlite:///team.db --out report
    """
    import optuna

    from autoranger.report.page import check_folder, write_report
    from autoranger.report.reading import read_report
    from autoranger.report.text import print_report
    from autoranger.search.storage.database import shown
    from autoranger.search.storage.existing import find_runs, find_study
    from autoranger.search.storage.storage import JOURNAL

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = storage or JOURNAL
    found = find_study(study, place)
    if folder is not None:
        check_folder(folder)
    with err.status("learning what each component contributes"):
        result = read_report(found, shown(place), find_runs(found, place))
        written = [] if folder is None else write_report(result, folder)
    if as_json:
        print_json(result.to_dict() | ({"out": [str(path) for path in written]} if written else {}))
        return
    print_report(out, result)
    if written:
        out.print(f"\nWritten: {escape(', '.join(map(str, written)))}", highlight=False, soft_wrap=True)


def studies(storage: Place = None, as_json: Json = False) -> None:
    """List the searches in a storage, the latest first: when they began, how they stand, and what they found.

    Other commands take the name of a search where they take a config file.

    **Examples**

        autoranger studies
        autoranger studies --storage postgresql+psycopg://me@host/studies
    """
    from autoranger.report.sentences import began
    from autoranger.report.standing import found_by, readable
    from autoranger.search.storage.existing import searches
    from autoranger.search.storage.storage import JOURNAL

    rows = [(study.study_name, readable(study), found_by(study)) for study in searches(storage or JOURNAL)]
    if as_json:
        print_json(
            {
                name: None if standing is None else standing.to_dict() | {"found": found}
                for name, standing, found in rows
            }
        )
        return
    if not rows:
        out.print("There is no search in this storage yet.")
        return
    cells = {
        name: ("?", "of another version", "") if standing is None else (began(standing), standing.state, found)
        for name, standing, found in rows
    }
    print_table("study", cells, "began", "state", "found")


def watch(study: Latest = None, storage: Place = None, as_json: Json = False) -> None:
    """Show a search while it runs: its rounds, its leaders and the time left.

    On a terminal this goes on until the search ends; Ctrl-C ends the watching, not the search. With --json, or where
    there is no terminal, the present moment is shown once.

    **Examples**

        autoranger watch
        autoranger watch mine --storage sqlite:///team.db
    """
    from autoranger.report.sentences import next_command
    from autoranger.report.standing import read_standing
    from autoranger.search.storage.database import shown
    from autoranger.search.storage.existing import find_study
    from autoranger.search.storage.storage import JOURNAL
    from autoranger.watch import follow

    found = find_study(study, storage or JOURNAL)
    if as_json:
        print_json(read_standing(found).to_dict())
        return
    with suppress(KeyboardInterrupt):
        follow(lambda: read_standing(found), out, lambda standing: next_command(standing, shown(storage or JOURNAL)))

"""``catkit-devices note``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catkit_devices.cli.options import Json, OneRun, RunsKept
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "note"]

EXAMPLES = ('catkit-devices note last "lamp was replaced before this run"', "catkit-devices runs last")


def note(
    run: OneRun,
    text: Annotated[
        list[str], typer.Argument(metavar="TEXT...", show_default=False, help="What there is to say about the run.")
    ],
    kept: RunsKept = Path("runs"),
    as_json: Json = False,
) -> None:
    """Add a note to a run, finished or not; `runs` shows it.

    It is kept in the directory of the run, with the time and your user name.
    """
    from catkit_devices.datalog import add_note, find_run

    directory = find_run(run, kept)
    added = add_note(directory, " ".join(text))
    if as_json:
        print_json({"run": str(directory), "text": added.text, "user": added.user, "time": added.time})
    else:
        console().print(f"note added to {directory}", markup=False)

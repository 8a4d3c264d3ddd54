"""``catkit-devices star``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catkit_devices.cli.options import Json, OneRun, RunsKept
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "star"]

EXAMPLES = ("catkit-devices star last", "catkit-devices star last --remove", "catkit-devices runs --starred")


def star(
    run: OneRun,
    remove: Annotated[bool, typer.Option("--remove", help="Take its star away.")] = False,
    kept: RunsKept = Path("runs"),
    as_json: Json = False,
) -> None:
    """Give a run a star, so that it is found again: `runs --starred`."""
    from catkit_devices.datalog import find_run, set_star

    directory = find_run(run, kept)
    set_star(directory, not remove)
    if as_json:
        print_json({"run": str(directory), "starred": not remove})
    else:
        console().print(f"{directory} has {'no star any more' if remove else 'a star'}", markup=False)

"""``catkit-devices export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catkit_devices.cli.options import Json, OneRun, RunsKept
from catkit_devices.cli.output import console, print_json, warn

__all__ = ["EXAMPLES", "export"]

EXAMPLES = (
    "catkit-devices export last --to scan.h5",
    "catkit-devices export FilterScan --to power.csv --tag power",
)


def export(
    run: OneRun,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="FILE", show_default=False, help="The file: .h5, .fits or .csv (scalars only)."),
    ],
    tags: Annotated[
        list[str],
        typer.Option("--tag", metavar="TAG", show_default=False, help="Only this tag; may be repeated."),
    ] = [],
    replace: Annotated[bool, typer.Option("--replace", help="Replace a file that is there.")] = False,
    kept: RunsKept = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write a run into one HDF5, FITS or CSV file, also while it goes on.

    HDF5 and FITS need h5py and astropy, which the extra `export` of catkit-devices installs.
    """
    from catkit_devices.datalog import export as write
    from catkit_devices.datalog import find_run

    directory = find_run(run, kept)
    left_out = write(directory, to, tags=tags, replace=replace)
    if as_json:
        print_json({"run": str(directory), "file": str(to), "left_out": left_out})
        return
    for text in left_out:
        warn(f"left out: {text}")
    console().print(f"{directory} written to {to}", markup=False)

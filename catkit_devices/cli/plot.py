"""``catkit-devices plot``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from catkit_devices.cli.options import Json, OneRun, RunsKept
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "plot"]

EXAMPLES = (
    "catkit-devices plot last power",
    "catkit-devices plot FilterScan power temperature --out scan.png",
    "catkit-devices plot last frame --index 0 --out first-frame.pdf",
)


def plot(
    run: OneRun,
    tags: Annotated[
        list[str],
        typer.Argument(metavar="TAG...", show_default=False, help="What to draw; `runs RUN` lists what there is."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", show_default=False,
            help="The picture: .png, .pdf or .svg; by default the first tag's name and .png, here.",
        ),
    ] = None,
    index: Annotated[
        int, typer.Option("--index", metavar="N", help="Which record of arrays and figures: 0 the first, -1 the last.")
    ] = -1,
    kept: RunsKept = Path("runs"),
    as_json: Json = False,
) -> None:  # fmt: skip
    """Draw what was logged under one or more tags, also while the run goes on.

    Scalars are drawn over time, curves as they are, arrays as an image or a line.
    """
    from catkit_devices.datalog import find_run
    from catkit_devices.datalog import plot as draw

    directory = find_run(run, kept)
    picture = out if out is not None else Path(re.sub(r"[^\w.+-]+", "_", tags[0]) + ".png")
    draw(directory, tags, picture, index)
    if as_json:
        print_json({"run": str(directory), "plot": str(picture)})
    else:
        console().print(f"plot of {directory}: {picture}", markup=False)

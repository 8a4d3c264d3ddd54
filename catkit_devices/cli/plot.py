"""``catkit-devices plot``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from catkit_devices.cli.options import Json, OneRun, RunsKept, seconds_option
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "plot"]

EXAMPLES = (
    "catkit-devices plot last",
    "catkit-devices plot last power --x position --log",
    "catkit-devices plot last --follow",
    "catkit-devices plot FilterScan power temperature --out scan.png",
    "catkit-devices plot last frame --index 0 --out first-frame.pdf",
)


def plot(
    run: OneRun,
    tags: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TAG", show_default=False,
            help="What to draw; left out: all scalars. `runs RUN` lists what there is.",
        ),
    ] = None,
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
    x: Annotated[
        str | None,
        typer.Option("--x", metavar="TAG", show_default=False, help="Draw scalars over this one, not over time."),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Logarithmic axis of the values, or colours of an image.")] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f",
            help="Go on until the run ends: in a window, with --out in that file, without a display in the terminal.",
        ),
    ] = False,
    interval: Annotated[float, seconds_option("--interval", 0.05, "Between two pictures of --follow.")] = 0.5,
    kept: RunsKept = Path("runs"),
    as_json: Json = False,
) -> None:  # fmt: skip
    """Draw what was logged under one or more tags, also while the run goes on.

    Scalars are drawn over time or over another scalar, curves as they are, arrays as a line, or as an image beside the
    row and the column through its brightest point.
    """
    from catkit_devices.cli.following import Wanted, has_display
    from catkit_devices.cli.following import follow as go_on
    from catkit_devices.datalog import find_run
    from catkit_devices.datalog import plot as draw
    from catkit_devices.errors import ConfigurationError

    directory, names = find_run(run, kept), list(tags or [])
    picture = out if out is not None else Path((re.sub(r"[^\w.+-]+", "_", names[0]) if names else "scalars") + ".png")
    if follow:
        if as_json and out is None and not has_display():
            raise ConfigurationError("--follow --json draws nothing in the terminal: say --out FILE")
        outcome = go_on(directory, Wanted(names, index, x, log), out, interval)
        if as_json:
            print_json({"run": str(directory), "plot": out and str(out), "outcome": outcome})
        else:
            console().print(f"{directory}: {outcome}{f', plot: {out}' if out else ''}", markup=False)
        return
    draw(directory, names, picture, index, x=x, log=log)
    if as_json:
        print_json({"run": str(directory), "plot": str(picture)})
    else:
        console().print(f"plot of {directory}: {picture}", markup=False)

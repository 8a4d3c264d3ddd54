"""``catkit-devices history``."""

from __future__ import annotations

import csv
import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.moments import local, moment
from catkit_devices.cli.options import ConfigFiles, Json, Overrides, TestbedName
from catkit_devices.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.testbed.telemetry.history import History, Point

__all__ = ["EXAMPLES", "history"]

EXAMPLES = (
    "catkit-devices history",
    "catkit-devices history environment.humidity --since 2d",
    "catkit-devices history meter.power laser.temperature --since 2026-11-01 --csv > power.csv",
    "catkit-devices history --trip --plot trip.png",
)

_BEFORE_TRIP, _AFTER_TRIP = 600.0, 60.0
"""Seconds around a trip that ``--trip`` shows."""
_SHOWN = 40
"""Rows of the table on a terminal: more values are averaged."""


def history(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DEVICE.PROPERTY]...", show_default=False,
            help="What to show; left out: which quantities there are, or with --trip or --plot all of them.",
        ),
    ] = None,
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", show_default=False, help="A history file; no testbed is needed then."),
    ] = None,
    since: Annotated[
        str,
        typer.Option(metavar="WHEN", help="From when on: 90s, 10m, 6h, 2d, 3w ago, or a date and time, local time."),
    ] = "1d",
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", show_default=False, help="Until when; by default until now.")
    ] = None,
    trip: Annotated[
        bool, typer.Option("--trip", help="The ten minutes before the last trip of the safety checks.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", show_default=False, help="Draw it: .png, .pdf or .svg."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Every value as CSV, with times in UTC.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show what devices have measured over hours, days and months: what the configuration marks as telemetry.

    Values of the last two days are single readings; older ones are averages over a minute, then over an hour, with
    the lowest and the highest value.
    """
    from catkit_devices.errors import ConfigurationError, DataError
    from catkit_devices.testbed.telemetry.history import TRIP, History

    if sum((as_csv, as_json, plot is not None)) > 1:
        raise ConfigurationError("expected one of --plot, --csv and --json, got several")
    with History(file if file is not None else _file_of(testbed, configs, overrides)) as kept:
        begin, end = moment(since, "--since"), None if until is None else moment(until, "--until")
        about = ""
        if trip:
            events = kept.events(TRIP)
            if not events:
                raise DataError(f"{kept.path} knows of no trip")
            when, about = events[-1]
            begin, end = when - _BEFORE_TRIP, when + _AFTER_TRIP
        known = kept.quantities()
        if not names and not trip and plot is None:
            _list(kept, as_json=as_json)
            return
        units = {one.name: one.unit for one in known}
        series = {name: kept.points(name, begin, end) for name in (names or units)}
    if plot is not None:
        _draw(plot, series, units, about)
        console().print(f"plot of {kept.path}: {plot}", markup=False)
    elif as_json:
        print_json({
            "file": str(kept.path),
            "trip": about or None,
            "quantities": {
                name: {"unit": units[name], "points": [point._asdict() for point in points]}
                for name, points in series.items()
            },
        })  # fmt: skip
    elif as_csv:
        _write_csv(series, units)
    else:
        for name, points in series.items():
            _print(name, units[name], points)
        if about:
            console().print(about, markup=False)


def _file_of(testbed: str | None, configs: Sequence[Path], overrides: Sequence[str]) -> Path:
    from catkit_devices.cli.attaching import attach
    from catkit_devices.errors import ConfigurationError, ServerNotFoundError

    if configs and testbed is None:
        from catkit_devices.testbed import load_configuration

        configured = load_configuration(configs, overrides).testbed
        return Path(configured.history or Path(configured.runs) / f"{configured.name}.history.sqlite")
    try:
        client = attach(testbed)
    except ServerNotFoundError as error:
        error.add_note("A history can be read without its testbed: --config FILE or --file FILE says where it is.")
        raise
    if not client.layout.has_telemetry:
        raise ConfigurationError(
            f"testbed {client.name!r} has no history: the table of a device declares what is kept: "
            "telemetry = { PROPERTY = READINGS_PER_SECOND }"
        )
    return Path(client.layout.history)


def _list(kept: History, *, as_json: bool) -> None:
    quantities = kept.quantities()
    if as_json:
        print_json({"file": str(kept.path), "quantities": [one._asdict() for one in quantities]})
        return
    print_table(
        f"quantities in {kept.path}",
        ["quantity", "unit", "from", "to"],
        [(one.name, one.unit or "", local(one.first), local(one.last)) for one in quantities],
    )


def _print(name: str, unit: str | None, points: Sequence[Point]) -> None:
    what = f"{name}{f' ({unit})' if unit else ''}"
    if not points:
        console().print(f"{what}: nothing in this time", markup=False)
        return
    size = -(-len(points) // _SHOWN)
    rows = [_row(points[first : first + size]) for first in range(0, len(points), size)]
    each = f", each row {size} values" if size > 1 else ""
    print_table(f"{what}: {len(points)} values{each}", ["time", "#value", "#lowest", "#highest", ""], rows)


def _row(points: Sequence[Point]) -> tuple[Any, ...]:
    numbers = [one for one in points if isinstance(one.value, int | float)]
    problem = next((one.problem for one in points if one.problem), "")
    if not numbers:
        texts = dict.fromkeys(str(one.value) for one in points if one.value is not None)
        return local(points[0].time), ", ".join(texts), "", "", problem
    count = sum(one.readings for one in numbers)
    mean = sum(one.value * one.readings for one in numbers) / count
    lowest, highest = min(one.lowest for one in numbers), max(one.highest for one in numbers)
    return local(points[0].time), f"{mean:.6g}", f"{lowest:.6g}", f"{highest:.6g}", problem


def _write_csv(series: dict[str, list[Point]], units: dict[str, str | None]) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["time", "quantity", "unit", "value", "lowest", "highest", "readings", "problem"])
    for name, points in series.items():
        for one in points:
            taken = dt.datetime.fromtimestamp(one.time, dt.UTC).isoformat(timespec="milliseconds")
            value, lowest, highest = ("" if part is None else part for part in (one.value, one.lowest, one.highest))
            out.writerow([taken, name, units[name] or "", value, lowest, highest, one.readings, one.problem or ""])


def _draw(file: Path, series: dict[str, list[Point]], units: dict[str, str | None], about: str) -> None:
    from catkit_devices.datalog.plotting import plot_over_time

    curves = {
        name: [(one.time, one.value, one.lowest, one.highest) for one in points] for name, points in series.items()
    }
    plot_over_time(curves, units, file, about)

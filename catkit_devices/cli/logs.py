"""``catkit-devices logs``."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Follow, Json, Overrides, Since, TestbedName
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "logs"]

EXAMPLES = (
    "catkit-devices logs",
    "catkit-devices logs wheel -f",
    "catkit-devices logs last --config bench.toml",
    "catkit-devices logs --since 2h --level WARNING --json",
)

_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
"""How the levels are shown on a terminal."""


def logs(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[DEVICE|RUN]", show_default=False, autocompletion=devices_of_testbed,
            help="A device: only what is about it; a run (its path, its name, or 'last'): the log of that run.",
        ),
    ] = None,
    follow: Follow = False,
    count: Annotated[
        int | None, typer.Option("--last", "-n", metavar="N", min=1, help="How many records; by default 50.")
    ] = None,
    since: Since = None,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help="The lowest level: DEBUG, INFO, WARNING, ERROR, CRITICAL.")
    ] = "DEBUG",
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", show_default=False, help="A log file; any of ours.")
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show the log of a testbed, of one device, or of a run; times are local, with their offset from UTC.

    A testbed keeps its log with the runs, in NAME.logs, in files of limited size; times in the files are in UTC.
    """
    from catkit_devices.cli.log_reading import following, log_records, newest
    from catkit_devices.cli.moments import moment
    from catkit_devices.errors import ConfigurationError

    lowest = logging.getLevelNamesMapping().get(level.upper())
    if lowest is None:
        raise ConfigurationError(f"--level: expected DEBUG, INFO, WARNING, ERROR or CRITICAL, got {level!r}")
    begin = -math.inf if since is None else moment(since, "--since")
    path, names = _file_of(what, file, testbed, configs, overrides)
    about = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b") if names else None

    def wanted(one: dict[str, Any]) -> bool:
        if about is not None and about.search(one["text"]) is None:
            return False
        return logging.getLevelNamesMapping().get(one["level"], 0) >= lowest

    if count is None and since is None:
        count = 50
    found = newest(path, log_records, wanted, count, begin)
    if as_json and not follow:
        print_json([_plain(one) for one in found])
        return
    for one in found:
        _show(one, as_json=as_json)
    if follow:
        for one in following(path, log_records):
            if wanted(one):
                _show(one, as_json=as_json)


def _file_of(
    what: str | None, file: Path | None, testbed: str | None, configs: list[Path], overrides: list[str]
) -> tuple[Path, frozenset[str]]:
    """Return the log file that is meant, and the names of the device that it is to be about; none for all."""
    import os

    from catkit_devices.cli.log_reading import place_of
    from catkit_devices.datalog import find_run
    from catkit_devices.datalog.logfile import FILE_NAME
    from catkit_devices.errors import ConfigurationError, ServerNotFoundError
    from catkit_devices.testbed.processes.log_files import LOG

    if file is not None:
        return file, frozenset({what} if what is not None else ())
    runs, devices, refused = Path(os.environ.get("CATKIT_DEVICES_RUNS", "runs")), [], None
    try:
        place = place_of(testbed, configs, overrides)
    except (ServerNotFoundError, ConfigurationError) as error:
        if what is None or testbed is not None or configs:
            raise
        refused = error  # a run can be looked at without a testbed
    else:
        if what is None or what in place.devices:
            return place.directory / LOG, place.devices.get(what or "", frozenset())
        runs, devices = place.runs, sorted(place.devices)
    try:
        return find_run(str(what), runs) / FILE_NAME, frozenset()
    except ConfigurationError as error:
        error.add_note(f"Nor is it a device: {', '.join(devices) or 'none'}." if refused is None else str(refused))
        raise


def _show(one: dict[str, Any], *, as_json: bool) -> None:
    from rich.text import Text

    from catkit_devices.cli.moments import local

    if as_json:
        print_json(_plain(one), one_line=True)
        return
    if one.get("continued"):
        console().print(Text(one["text"]))
        return
    when = local(one["moment"], milliseconds=True)
    console().print(
        Text.assemble(
            (when, "dim"), " ", (f"{one['level']:8}", _COLOURS.get(one["level"], "")), f" {one['process']}: ",
            one["text"],
        )
    )  # fmt: skip


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != "moment"}

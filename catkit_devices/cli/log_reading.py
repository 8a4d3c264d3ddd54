"""Reading the log files of testbeds and runs: the newest records, those of one device, and those that come."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from catkit_devices.errors import DataError, ServerNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["LogPlace", "audit_entries", "following", "log_records", "newest", "place_of"]

_LOOK = 0.25
"""Seconds between two looks whether a file has grown."""
_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>\w+) +(?P<process>.+?) \((?P<pid>\d+)\) "
    r"(?P<thread>.+?) (?P<logger>[\w.]+): (?P<text>.*)",
    re.DOTALL,
)
"""One record of a log, as ``catkit_devices.datalog.logfile`` writes it."""


class LogPlace(NamedTuple):
    """Where a testbed keeps its log and its runs, and what its devices are called."""

    directory: Path
    runs: Path
    devices: dict[str, frozenset[str]]
    """The names under which each device is known, by each of these names."""


def place_of(testbed: str | None, configs: Sequence[Path], overrides: Sequence[str]) -> LogPlace:
    """Return where the log of a testbed is: of one of a configuration, which need not run, or of one that runs.

    Raises:
        ServerNotFoundError: there is no configuration, and none runs.
    """
    from catkit_devices.cli.attaching import attach

    if configs and testbed is None:
        from catkit_devices.testbed import load_configuration

        configuration = load_configuration(configs, overrides)
        table = configuration.testbed
        names = [frozenset({name, *device.aliases}) for name, device in configuration.devices.items()]
        directory = Path(table.logs or Path(table.runs) / f"{table.name}.logs")
        return LogPlace(directory, Path(table.runs), {name: some for some in names for name in some})
    try:
        layout = attach(testbed).layout
    except ServerNotFoundError as error:
        error.add_note("The log of a testbed that has ended can be read too: --config FILE or --file FILE says where.")
        raise
    names = [frozenset({entry.name, *entry.aliases}) for entry in layout.devices]
    return LogPlace(Path(layout.logs), Path(layout.runs), {name: some for some in names for name in some})


def newest(
    path: Path,
    records_of: Callable[[Iterable[str]], Iterator[dict[str, Any]]],
    wanted: Callable[[dict[str, Any]], bool],
    count: int | None,
    since: float,
) -> list[dict[str, Any]]:
    """Return the newest records of a file and of the older files that were renamed, the oldest first.

    Args:
        path: the file; the older ones have ``.1``, ``.2`` and so on behind their name.
        records_of: makes records of lines.
        wanted: whether a record is.
        count: how many, at most; None for all.
        since: the time of the oldest, in seconds since 1970 UTC.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    if not path.exists():
        raise DataError(f"there is no log {path}: nothing was logged yet, or it is kept elsewhere")
    found: deque[dict[str, Any]] = deque(maxlen=count)
    for number in range(1_000):
        file = path if number == 0 else path.with_name(f"{path.name}.{number}")
        if not file.exists():
            break
        try:
            with file.open(encoding="utf-8", errors="backslashreplace") as lines:
                records = list(records_of(lines))
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error}") from error
        found.extendleft(
            one for one in reversed(records) if one["moment"] >= since and wanted(one) and not _full(found)
        )
        if _full(found) or (records and records[0]["moment"] < since):
            break
    return sorted(found, key=lambda one: one["moment"])  # several processes write, each a little later


def _full(found: deque[dict[str, Any]]) -> bool:
    return found.maxlen is not None and len(found) >= found.maxlen


def following(path: Path, records_of: Callable[[Iterable[str]], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield the records that are added to a file, also when it is renamed and begun anew; for ever."""
    with path.open("rb") as first:
        first.seek(0, 2)
        yield from records_of(_text(_added(first)))
        while True:
            if path.exists():
                break
            time.sleep(_LOOK)
    while True:
        with path.open("rb") as file:
            yield from records_of(_text(_added(file)))


def _added(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines that are added to an open file, each when it is complete, until another has taken its place."""
    begun = b""
    while True:
        line = begun + file.readline()
        if line.endswith(b"\n"):
            begun = b""
            yield line
            continue
        begun = line
        if not line and not _is_in_place(file):
            return
        time.sleep(_LOOK)


def _is_in_place(file: IO[bytes]) -> bool:
    import os

    try:
        return os.path.samestat(os.fstat(file.fileno()), Path(file.name).stat())
    except OSError:
        return False


def _text(lines: Iterable[bytes]) -> Iterator[str]:
    return (line.decode("utf-8", "backslashreplace") for line in lines)


def log_records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a log; lines without a time belong to the record before, and are yielded with its facts."""
    from catkit_devices.cli.moments import moment

    last: dict[str, Any] = {"time": "", "level": "", "process": "", "pid": 0, "thread": "", "logger": "", "moment": 0.0}
    for line in lines:
        parts = _LINE.fullmatch(line.rstrip("\n"))
        if parts is None:
            yield {**last, "text": line.rstrip("\n"), "continued": True}
            continue
        last = {**parts.groupdict(), "pid": int(parts["pid"]), "moment": moment(parts["time"], "time")}
        yield last


def audit_entries(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the entries of an audit trail; a line that was torn by a full disk is left out."""
    from catkit_devices.cli.moments import moment

    for line in lines:
        try:
            one = json.loads(line)
            yield {**one, "moment": moment(one["time"], "time")}
        except (ValueError, KeyError, TypeError):
            continue

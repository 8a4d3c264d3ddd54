"""Finding runs: all runs in a directory, or one run by its name."""

from __future__ import annotations

import datetime as dt
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catkit_devices.datalog import database, directory
from catkit_devices.datalog.reader import RunReader
from catkit_devices.errors import ConfigurationError, DataError, nearest

__all__ = ["LAST", "RunSummary", "find_run", "find_runs", "summarise"]

LAST = "last"
"""The word that means the newest run, where a run's name is expected."""


@dataclass(frozen=True)
class RunSummary:
    """The main facts of a run, as lists of runs show them.

    ``outcome`` is how the run ended: ``finished``, ``failed`` or ``stopped``. It is ``running`` while the run goes on,
    ``killed`` if its processes are gone, ``unknown`` for a run of another computer that has no outcome, and
    ``unreadable`` if its files are damaged. ``detail`` says why, if that is known.
    """

    path: Path
    name: str
    started: dt.datetime | None
    ended: dt.datetime | None
    outcome: str
    detail: str
    records: int


def find_runs(root: str | os.PathLike[str]) -> list[Path]:
    """Return the directories of all runs kept under ``root``, oldest first."""
    return sorted((file.parent for file in Path(root).glob(f"*/{database.FILE_NAME}")), key=_age)


def find_run(text: str, root: str | os.PathLike[str]) -> Path:
    """Return the directory of a run that is given by its path or name.

    Args:
        text: the path of a run; or, of a run under ``root``, the name of its directory, the name of what ran (of
            several, the newest is returned), or ``last`` for the newest of all.
        root: where runs are kept.

    Raises:
        ConfigurationError: there is no such run; the message names the nearest.
    """
    if _is_run(Path(text)):
        return Path(text)
    runs = find_runs(root)
    if not runs:
        raise ConfigurationError(f"there is no run in {root}, and {text} is not the directory of a run")
    if text == LAST:
        return runs[-1]
    for run in reversed(runs):
        if text in (run.name, _name(run)):
            return run
    names = dict.fromkeys([LAST, *map(_name, runs), *(run.name for run in runs)])
    raise ConfigurationError(
        f"no run {text!r} in {root}: expected the path of a run, its name, or {LAST!r}",
        suggestion=nearest(text, names),
    )


def _is_run(path: Path) -> bool:
    try:
        return (path / database.FILE_NAME).is_file()
    except PermissionError:
        return True  # it may be one: reading it then raises that this is not permitted
    except (OSError, ValueError):  # no name that a directory can have
        return False


def summarise(path: Path) -> RunSummary:
    """Return the main facts of a run; of a damaged run, that it is unreadable and why."""
    try:
        information = directory.read_description(path, directory.INFORMATION)
        with RunReader(path) as reader:
            outcome = reader.outcome or {"outcome": _unfinished(information), "detail": ""}
            records = sum(tag.count for tag in reader.tags() if tag.kind != "event")
    except DataError as error:
        return RunSummary(path, path.name, None, None, "unreadable", str(error), 0)
    ended = dt.datetime.fromtimestamp(outcome["time_ns"] / 1e9, dt.UTC) if "time_ns" in outcome else None
    return RunSummary(
        path, information["name"], _started(information), ended, outcome["outcome"], outcome["detail"], records
    )


def _unfinished(information: dict[str, Any]) -> str:
    """Say what happened to a run without an outcome, which the process that made it records before it ends."""
    if information.get("host") != platform.node() or os.name != "posix":
        return "unknown"
    try:
        os.kill(int(information["pid"]), 0)
    except ProcessLookupError:
        return "killed"
    except (KeyError, TypeError, ValueError, OverflowError):  # run.json does not say which process it was
        return "unknown"
    except PermissionError:
        pass  # the process exists, and belongs to another user
    return "running"


def _started(information: dict[str, Any]) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(information["started"])
    except (KeyError, TypeError, ValueError):
        return None


def _name(run: Path) -> str:
    try:
        return str(directory.read_description(run, directory.INFORMATION)["name"])
    except (DataError, KeyError):
        return run.name


def _age(run: Path) -> tuple[float, str]:
    try:
        started = _started(directory.read_description(run, directory.INFORMATION))
    except DataError:
        started = None
    return (run.stat().st_mtime if started is None else started.timestamp()), run.name

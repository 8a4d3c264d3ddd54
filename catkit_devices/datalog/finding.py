"""Finding runs: all runs in a directory, or one run by its name."""

from __future__ import annotations

import datetime as dt
import fnmatch
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog import database, directory
from catkit_devices.datalog.notes import read_notes
from catkit_devices.datalog.reader import RunReader
from catkit_devices.datalog.summaries import KnownSummaries, RunSummary
from catkit_devices.errors import ConfigurationError, DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["LAST", "OUTCOMES", "RunSummary", "find_run", "find_runs", "select_runs", "summarise"]

LAST = "last"
"""The word that means the newest run, where a run's name is expected."""
OUTCOMES = ("finished", "failed", "stopped", "running", "killed", "unknown", "unreadable")
"""What a :class:`RunSummary` may say of the end of a run."""


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


def select_runs(
    root: str | os.PathLike[str],
    *,
    name: str | None = None,
    outcomes: Collection[str] = (),
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    starred: bool = False,
    last: int | None = None,
) -> list[RunSummary]:
    """Return the main facts of the runs kept under ``root`` that fulfil every condition, oldest first.

    Args:
        root: where runs are kept.
        name: what ran, or the name of the run's directory; ``*`` stands for anything.
        outcomes: how they ended: one of ``OUTCOMES``, or several; empty for any.
        since: when they have started at the earliest.
        until: when they have started at the latest.
        starred: only those with a star.
        last: at most so many, the newest; only these are read.
    """
    known = KnownSummaries(Path(root))
    runs = [file.parent for file in Path(root).glob(f"*/{database.FILE_NAME}")]
    summaries = {run: known.get(run) for run in runs}
    ages = {run: _age(run) if summary is None else _age_of(summary) for run, summary in summaries.items()}
    found: list[RunSummary] = []
    for run in sorted(runs, key=ages.__getitem__, reverse=True):
        if last is not None and len(found) >= last:
            break
        summary = summaries[run]
        what = _name(run) if summary is None else summary.name
        if name is not None and not any(fnmatch.fnmatchcase(one, name) for one in (run.name, what)):
            continue
        if summary is None:
            summary = summarise(run)
            known.add(summary)
        begun = summary.started
        if (
            (not outcomes or summary.outcome in outcomes)
            and (since is None or (begun is not None and begun >= since))
            and (until is None or (begun is not None and begun <= until))
            and (summary.notes.starred or not starred)
        ):
            found.append(summary)
    known.save()
    return found[::-1]


def summarise(path: Path) -> RunSummary:
    """Return the main facts of a run; of a damaged run, that it is unreadable and why."""
    try:
        information = directory.read_description(path, directory.INFORMATION)
        notes = read_notes(path)
        with RunReader(path) as reader:
            outcome = reader.outcome or {"outcome": _unfinished(information), "detail": ""}
            records = reader.record_count
        ended = dt.datetime.fromtimestamp(outcome["time_ns"] / 1e9, dt.UTC) if "time_ns" in outcome else None
        return RunSummary(
            path, information["name"], _started(information), ended, outcome["outcome"], outcome["detail"], records,
            notes,
        )  # fmt: skip
    except DataError as error:
        return RunSummary(path, path.name, None, None, "unreadable", str(error), 0)


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


def _age_of(summary: RunSummary) -> tuple[float, str]:
    started = summary.started
    return (summary.path.stat().st_mtime if started is None else started.timestamp()), summary.path.name


def _age(run: Path) -> tuple[float, str]:
    try:
        started = _started(directory.read_description(run, directory.INFORMATION))
    except DataError:
        started = None
    return (run.stat().st_mtime if started is None else started.timestamp()), run.name

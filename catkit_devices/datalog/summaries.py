"""The main facts of runs, and a file that keeps those of many runs, so that a list of thousands is there at once.

The file is a help only: an entry counts as long as the files of its run are those that it was made from, and it may be
deleted at any time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catkit_devices.datalog import database, directory, notes
from catkit_devices.datalog.notes import Note, Notes

__all__ = ["FILE_NAME", "KnownSummaries", "RunSummary"]

FILE_NAME = ".summaries.json"
"""The file that keeps the main facts, in the directory of all runs."""
_WORTH_SAVING = 100
"""Runs that had to be read, from which on their facts are kept: fewer are read again as quickly."""
_VERSION = 1
"""Of what the file holds; a file of another version is not read."""


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
    notes: Notes = field(default_factory=Notes)


class KnownSummaries:
    """Summaries of runs that have ended, kept in a file beside them.

    Args:
        root: where the runs are.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Any] = {}
        self._added = 0
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            content = json.loads((root / FILE_NAME).read_text(encoding="utf-8"))
            if content["version"] == _VERSION:
                self._known = dict(content["runs"])

    def get(self, run: Path) -> RunSummary | None:
        """Return the summary of a run, or None if it is not known or the run has changed."""
        try:
            entry = self._known[run.name]
            if entry["files"] != _files(run):
                return None
            started, ended = (entry[key] and dt.datetime.fromisoformat(entry[key]) for key in ("started", "ended"))
            written = tuple(
                Note(text, user, time and dt.datetime.fromisoformat(time)) for text, user, time in entry["notes"]
            )
            return RunSummary(
                run, entry["name"], started, ended, entry["outcome"], entry["detail"], entry["records"],
                Notes(written, entry["starred"]),
            )  # fmt: skip
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def add(self, summary: RunSummary) -> None:
        """Keep the summary of a run, if the run has ended in good order: only then its files do not change any more."""
        try:
            files = _files(summary.path)
        except OSError:
            return
        if summary.ended is None or files is None:
            return
        self._added += 1
        self._known[summary.path.name] = {
            "files": files,
            "name": summary.name,
            "started": summary.started and summary.started.isoformat(),
            "ended": summary.ended.isoformat(),
            "outcome": summary.outcome,
            "detail": summary.detail,
            "records": summary.records,
            "starred": summary.notes.starred,
            "notes": [(one.text, one.user, one.time and one.time.isoformat()) for one in summary.notes.notes],
        }

    def save(self) -> None:
        """Write the file if that is worth it; a directory that cannot be written is left as it is."""
        if self._added < _WORTH_SAVING:
            return
        with contextlib.suppress(OSError):
            number, name = tempfile.mkstemp(dir=self._root, prefix=FILE_NAME)
            try:
                with os.fdopen(number, "w", encoding="utf-8") as file:
                    json.dump({"version": _VERSION, "runs": self._known}, file)
                Path(name).replace(self._root / FILE_NAME)
            except BaseException:
                Path(name).unlink()
                raise


def _files(run: Path) -> list[list[int]] | None:
    """Return what changes when a run is changed: time and size of its files; None while it is open for writing.

    Raises:
        OSError: a file is missing.
    """
    if (run / f"{database.FILE_NAME}-wal").exists():
        return None
    found = []
    for name in (database.FILE_NAME, directory.INFORMATION):
        about = (run / name).stat()
        found.append([about.st_mtime_ns, about.st_size])
    with contextlib.suppress(FileNotFoundError):
        about = (run / notes.FILE_NAME).stat()
        found.append([about.st_mtime_ns, about.st_size])
    return found

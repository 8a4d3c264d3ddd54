"""What people write about a run afterwards, or while it goes on: notes, and a star for those worth finding again.

They are in a file of their own in the directory of the run, to which lines are only ever appended: several people may
write at the same time, and what the run itself records is never touched.
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
from dataclasses import dataclass
from pathlib import Path

from catkit_devices.datalog import database, directory
from catkit_devices.errors import DataError

__all__ = ["FILE_NAME", "Note", "Notes", "add_note", "read_notes", "set_star"]

FILE_NAME = "notes.jsonl"
"""The file with the notes, in the directory of a run: a JSON object in each line."""
_DAMAGED = "(a line of notes.jsonl that cannot be read)"
"""Stands for a line that was cut off by a power failure, or changed by hand."""


@dataclass(frozen=True)
class Note:
    """One note: what was written, by whom and when (UTC); both are None if the file does not say."""

    text: str
    user: str | None
    time: dt.datetime | None


@dataclass(frozen=True)
class Notes:
    """All notes of a run, oldest first, and whether it has a star."""

    notes: tuple[Note, ...] = ()
    starred: bool = False


def add_note(run: str | os.PathLike[str], text: str) -> Note:
    """Add a note to a run, finished or not.

    Args:
        run: its directory.
        text: of the note, not empty.

    Raises:
        DataError: it is not a run, the text is empty, or the note cannot be written.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"run {run}: a note needs a text, got {text!r}")
    written = _append(Path(run), {"note": text})
    return Note(text, written["user"], dt.datetime.fromisoformat(str(written["time"])))


def set_star(run: str | os.PathLike[str], starred: bool = True) -> None:
    """Give a run a star, or take it away.

    Args:
        run: its directory.
        starred: whether it has one from now on.

    Raises:
        DataError: it is not a run, or this cannot be written.
    """
    _append(Path(run), {"star": starred})


def read_notes(run: str | os.PathLike[str]) -> Notes:
    """Return the notes of a run, and whether it has a star.

    Raises:
        DataError: they cannot be read.
    """
    try:
        lines = (Path(run) / FILE_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return Notes()
    except OSError as error:
        raise DataError(f"run {run}: {FILE_NAME} cannot be read: {error}") from error
    notes: list[Note] = []
    starred = False
    for line in filter(None, lines):
        try:
            entry = json.loads(line)
            if isinstance(entry.get("star"), bool):
                starred = entry["star"]
            else:
                notes.append(Note(str(entry["note"]), entry["user"], dt.datetime.fromisoformat(entry["time"])))
        except (ValueError, KeyError, TypeError, AttributeError):
            notes.append(Note(_DAMAGED, None, None))
    return Notes(tuple(notes), starred)


def _append(run: Path, entry: dict[str, object]) -> dict[str, str | None]:
    directory.read_description(run, directory.INFORMATION)  # raises if it is not a run
    try:
        user: str | None = getpass.getuser()
    except (KeyError, OSError):
        user = None  # a user number without a name, as there is in containers
    signature = {"user": user, "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")}
    # The line begins with a line break, so that a line that a power failure has cut off does not damage this one. It is
    # written at once, at the end of the file wherever that is then: so two writers never mix.
    line = "\n" + json.dumps({**entry, **signature}) + "\n"
    try:
        file = os.open(run / FILE_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise database.explain(error, run, f"{FILE_NAME} cannot be written") from error
    return signature

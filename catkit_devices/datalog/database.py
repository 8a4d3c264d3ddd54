"""The SQLite file of a run: its tables, and how it is opened for writing and for reading.

It is in WAL mode with ``synchronous=NORMAL``: a statement that returned has reached the operating system and survives
the death of this process by any signal; after a power failure the newest statements may be missing, the file is whole.
Readers never wait for the writer, nor it for them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.datalog.filesystem import refuse_network
from catkit_devices.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FILE_NAME", "FORMAT", "connect_reader", "connect_writer", "create", "explain"]

FILE_NAME = "data.sqlite"
FORMAT = 1
"""Version of the tables; a database of another version is not read."""
_PATIENCE = 10.0
"""Seconds that opening waits while somebody else has the file to himself."""
_PAUSE = 0.005
"""Seconds between two attempts to open."""

# Times are integers, nanoseconds since 1970 UTC. `id` grows in the order in which records were committed. SQLite has no
# NaN and keeps it as NULL, so a scalar's value may be NULL and NULL is read back as NaN.
_TABLES = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE tags (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, tag TEXT NOT NULL, unit TEXT, UNIQUE (kind, tag)
);
CREATE TABLE scalars (
    id INTEGER PRIMARY KEY, tag INTEGER NOT NULL REFERENCES tags (id), time INTEGER NOT NULL, value
);
-- Where an array lies: a whole .npy record of `size` bytes at `offset` of `file`, which lies beside the database.
CREATE TABLE arrays (
    id INTEGER PRIMARY KEY, tag INTEGER NOT NULL REFERENCES tags (id), time INTEGER NOT NULL,
    file TEXT NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL
);
CREATE TABLE objects (
    id INTEGER PRIMARY KEY, tag INTEGER NOT NULL REFERENCES tags (id), time INTEGER NOT NULL,
    data BLOB NOT NULL, attributes TEXT NOT NULL
);
-- An index has the row's id behind the tag, so the records of a tag are found, and in the order in which they came.
CREATE INDEX scalars_of_tag ON scalars (tag);
CREATE INDEX arrays_of_tag ON arrays (tag);
CREATE INDEX objects_of_tag ON objects (tag);
"""


def create(directory: Path) -> None:
    """Make the empty database of a new run.

    Raises:
        DataError: there is one already, or it cannot be written there.
    """
    path = directory / FILE_NAME
    if path.exists():
        raise DataError(f"run {directory}: it has a {FILE_NAME} already")
    connection = None
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise DataError(f"run {directory}: this file system lacks what a live run needs: keep runs elsewhere")
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")
    except sqlite3.Error as error:
        raise explain(error, directory, "the data file cannot be made") from error
    finally:
        if connection is not None:
            connection.close()


def connect_writer(directory: Path, *, busy_timeout: float = _PATIENCE) -> sqlite3.Connection:
    """Open a run's database for appending, beside whoever else has it open.

    Args:
        directory: the run's directory.
        busy_timeout: seconds that a statement waits for another process's statement to end before it fails.

    Returns:
        A connection that commits every statement by itself and that threads may use in turn.

    Raises:
        DataError: it is missing, of another format, not writable, or on a network file system.
    """
    refuse_network(directory)
    path = directory / FILE_NAME

    def open_() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=busy_timeout,
        )
        with _closed_on_error(connection):
            _check_format(connection, directory)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    try:
        return _patiently(open_, busy_timeout)
    except sqlite3.Error as error:
        raise explain(error, directory, f"{FILE_NAME} cannot be opened for writing") from error


def connect_reader(directory: Path) -> sqlite3.Connection:
    """Open a run's database for reading, also while another process writes it, also on a read-only medium.

    Raises:
        DataError: it is missing, damaged or of another format.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise DataError(f"{directory} is not a run: it has no {FILE_NAME}")

    def open_(options: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None, check_same_thread=False
        )
        with _closed_on_error(connection):
            _check_format(connection, directory)
        return connection

    failure: Exception | None = None
    for options in _reading_options(path):
        try:
            return _patiently(partial(open_, options), _PATIENCE)
        except sqlite3.Error as error:
            failure = error
    raise explain(failure, directory, f"{FILE_NAME} cannot be read") from failure


def _patiently(open_: Callable[[], sqlite3.Connection], patience: float) -> sqlite3.Connection:
    """Open a database while other processes open it, close it, or die with it open.

    The last process that closes it, and the first one that opens it after a crash, have exclusive use for a moment.
    Another process that opens it then is refused at once, whatever timeout SQLite was given (sqlite.org/wal.html,
    section 8).
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return open_()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE)


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _reading_options(path: Path) -> Iterator[str]:
    yield "mode=ro"
    # WAL needs its side files, which cannot be made on a read-only medium. Without a WAL all is in the file itself.
    if not path.with_name(path.name + "-wal").exists() and not os.access(path.parent, os.W_OK):
        yield "mode=ro&immutable=1"


def _check_format(connection: sqlite3.Connection, directory: Path) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found != FORMAT:
        raise DataError(f"run {directory}: {FILE_NAME} has format {found}, this version reads format {FORMAT}")


def explain(error: BaseException | None, directory: Path, what: str) -> DataError:
    """Build the DataError for a failure of SQLite or of a file, in words that say what to do about it."""
    text = str(error)
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in text:
        return DataError(f"run {directory} is closed: nothing more can be recorded in it or read from it")
    if "readonly" in text or "unable to open" in text:
        text += "; is the directory there, and writable by this user?"
    elif "full" in text or "disk I/O" in text:
        text += "; free some space: everything recorded before is intact"
    elif "locked" in text:
        text += " by another process"
    return DataError(f"run {directory}: {what}: {text}")

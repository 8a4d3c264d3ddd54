"""The SQLite file of a run: its tables, and how it is opened for writing and for reading.

It is in WAL mode (write-ahead log) with ``synchronous=NORMAL``. What a statement has written is with the operating
system when the statement returns, and survives when this process is killed. After a power failure the newest statements
may be missing; the file is intact. Readers never wait for the writer, and the writer never waits for readers.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
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
"""The file with the values, in the directory of a run."""
FORMAT = 1
"""Version of the tables; a database of another version is not read."""
_OPEN_TIMEOUT = 10.0
"""Seconds that opening waits while another process has exclusive use of the file."""
_PAUSE = 0.005
"""Seconds between two attempts to open."""

# Times are integers, nanoseconds since 1970 UTC. `id` grows in the order in which records were committed. SQLite has no
# NaN and stores NULL for it, so a scalar's value may be NULL, and is read back as NaN.
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
-- An index contains the tag and then the row's id, so it gives the records of a tag in the order of their commit.
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
            raise DataError(
                f"run {directory}: its file system does not support SQLite's write-ahead log, which recording needs: "
                "keep runs on another disk"
            )
        connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")
    except sqlite3.Error as error:
        raise explain(error, directory, "the data file cannot be made") from error
    finally:
        if connection is not None:
            connection.close()


def connect_writer(directory: Path, *, busy_timeout: float = _OPEN_TIMEOUT) -> sqlite3.Connection:
    """Open a run's database for appending; other processes may have it open too.

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
        return _open_when_free(open_, busy_timeout)
    except sqlite3.Error as error:
        raise explain(error, directory, f"{FILE_NAME} cannot be opened for writing") from error


def connect_reader(directory: Path) -> sqlite3.Connection:
    """Open a run's database for reading, even while another process writes it, or on a read-only medium.

    Raises:
        DataError: it is missing, damaged or of another format.
    """
    path = directory / FILE_NAME
    try:
        there = stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except (OSError, ValueError) as error:
        raise DataError(f"run {directory}: {FILE_NAME} cannot be read: {error}") from error
    if not there:
        raise DataError(f"{directory} is not a run: it has no {FILE_NAME}")

    def open_(options: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None, check_same_thread=False
        )
        with _closed_on_error(connection):
            _check_format(connection, directory)
        return connection

    failure: Exception | None = None
    if not os.access(path, os.R_OK):
        raise DataError(f"run {directory}: {FILE_NAME} cannot be read: this user may not read it")
    for options in _reading_options(path):
        try:
            return _open_when_free(partial(open_, options), _OPEN_TIMEOUT)
        except sqlite3.Error as error:
            failure = error
    raise explain(failure, directory, f"{FILE_NAME} cannot be read") from failure


def _open_when_free(open_: Callable[[], sqlite3.Connection], timeout: float) -> sqlite3.Connection:
    """Open a database; wait while another process has exclusive use of it.

    The last process that closes it, and the first one that opens it after a crash, have exclusive use for a moment.
    Another process that opens it then is refused at once, whatever timeout SQLite was given (sqlite.org/wal.html,
    section 8).
    """
    deadline = time.monotonic() + timeout
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
    # WAL mode needs two more files, which cannot be made on a read-only medium. Without a -wal file, all data is in the
    # database file itself.
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
        text += "; does the directory exist, and may this user write it?"
    elif "full" in text or "disk I/O" in text:
        text += "; free some space: everything recorded before is intact"
    elif "locked" in text:
        text += " by another process"
    return DataError(f"run {directory}: {what}: {text}")

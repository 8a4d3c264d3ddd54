"""The history of telemetry: one SQLite file of a testbed, for months; the older it is, the coarser it becomes.

Readings are kept as they were for two days, as averages over a minute for 60 days, and as averages over an hour after
that; each average has the lowest and the highest value beside it. When the file becomes larger than it may be, the
oldest of what is finest is deleted first.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from catkit_devices.errors import ConfigurationError, DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["TRIP", "History", "HistoryWriter", "Point", "Quantity"]

TRIP = "trip"
"""The kind of event that a trip of the safety checks is."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
"""Seconds."""
_KEEP_READINGS = 2 * _DAY
"""Seconds for which every reading is kept,"""
_KEEP_MINUTES = 60 * _DAY
"""and for which the averages of minutes are; those of hours are kept as long as there is room."""
_LATE = 2 * _MINUTE
"""Seconds after the end of a minute until its average is made: readings of a slow server may still come."""
_PART = 0.1
"""The part of the oldest values that is deleted at once if the file is too large."""
_BUSY = 10.0
"""Seconds that a statement waits while another process uses the file."""
_FORMAT = 1
"""Version of the tables."""

# Times are in seconds since 1970 UTC. A row of `averages` is about the `span` seconds that begin at `time`.
_TABLES = """
CREATE TABLE quantities (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, unit TEXT);
CREATE TABLE readings (
    quantity INTEGER NOT NULL, time REAL NOT NULL, value, problem TEXT, PRIMARY KEY (quantity, time)
) WITHOUT ROWID;
CREATE TABLE averages (
    quantity INTEGER NOT NULL, span INTEGER NOT NULL, time INTEGER NOT NULL, count INTEGER NOT NULL,
    mean REAL NOT NULL, lowest REAL NOT NULL, highest REAL NOT NULL, PRIMARY KEY (quantity, span, time)
) WITHOUT ROWID;
CREATE TABLE events (time REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE averaged (span INTEGER PRIMARY KEY, until INTEGER NOT NULL);
"""

# Texts are not averaged. With "one", only readings of one quantity.
_AVERAGE_READINGS = """
INSERT OR REPLACE INTO averages
SELECT quantity, :span, CAST(time / :span AS INTEGER) * :span, count(*), avg(value), min(value), max(value)
FROM readings
WHERE typeof(value) IN ('real', 'integer') AND time >= :begin AND time < :end AND (:one IS NULL OR quantity = :one)
GROUP BY 1, 3
"""
_AVERAGE_AVERAGES = """
INSERT OR REPLACE INTO averages
SELECT quantity, :span, time / :span * :span, sum(count), sum(mean * count) / sum(count), min(lowest), max(highest)
FROM averages WHERE span = :finer AND time >= :begin AND time < :end GROUP BY 1, 3
"""
_TIMES_OF_AVERAGES = "SELECT min(time), max(time) FROM averages WHERE span = ?"
_DELETE_AVERAGES = "DELETE FROM averages WHERE time <= ? AND span = ?"


class Quantity(NamedTuple):
    """A quantity that a history knows."""

    name: str
    unit: str | None
    first: float
    """Time of the oldest value, in seconds since 1970 UTC."""
    last: float
    """Time of the newest."""


class Point(NamedTuple):
    """One value of a history: a reading, or the average of several."""

    time: float
    """Of the reading; of an average, of the middle of its minute or hour. Seconds since 1970 UTC."""
    value: Any
    """None if nothing was measured."""
    lowest: Any
    highest: Any
    readings: int
    """How many readings it is the average of."""
    problem: str | None = None
    """Why there is no value."""


class History:
    """The history of a testbed's telemetry, for reading, also while it is being written.

    Args:
        path: of the file.

    Raises:
        DataError: there is no such file, or it is no history.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"there is no history {self.path}: a testbed makes it when a device has telemetry")
        self._connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY)
        try:
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            self.close()
            raise DataError(f"{self.path} is no history of telemetry: {error}") from error
        if version != _FORMAT:
            self.close()
            raise DataError(f"{self.path} is no history of telemetry, or of another version of this program")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def quantities(self) -> list[Quantity]:
        """Return all quantities, by name."""
        return [
            Quantity(*row)
            for row in self._connection.execute(
                "SELECT name, unit, min(first), max(last) FROM quantities JOIN ("
                "  SELECT quantity, min(time) AS first, max(time) AS last FROM readings GROUP BY quantity UNION ALL"
                "  SELECT quantity, min(time), max(time) FROM averages GROUP BY quantity"
                ") ON quantity = id GROUP BY id ORDER BY name"
            )
        ]

    def points(self, name: str, since: float, until: float | None = None) -> list[Point]:
        """Return the values of a quantity, oldest first: readings where they are still kept, else averages.

        Args:
            name: of the quantity.
            since: seconds since 1970 UTC.
            until: the same; None for now.

        Raises:
            ConfigurationError: there is no such quantity; the nearest is named.
        """
        row = self._connection.execute("SELECT id FROM quantities WHERE name = ?", (name,)).fetchone()
        if row is None:
            known = [name for (name,) in self._connection.execute("SELECT name FROM quantities ORDER BY name")]
            listed = ", ".join(known) or "none"
            raise ConfigurationError(
                f"{self.path} has no quantity {name!r}, it has {listed}", suggestion=nearest(name, known)
            )
        (which,) = row
        end = time.time() + 1 if until is None else until
        found = [
            Point(taken, value, value, value, int(value is not None), problem)
            for taken, value, problem in self._connection.execute(
                "SELECT time, value, problem FROM readings"
                " WHERE quantity = ? AND time >= ? AND time <= ? ORDER BY time",
                (which, since, end),
            )
        ]
        for span in (_MINUTE, _HOUR):
            averages = self._averages(which, span, since, min(end, self._begin_of_finer(which, span)))
            covered = averages[-1].time + span / 2 if averages else since
            found = [*averages, *(point for point in found if point.time >= covered)]
        return found

    def events(self, kind: str) -> list[tuple[float, str]]:
        """Return time and text of what was noted, oldest first; ``kind`` is ``TRIP``."""
        rows = self._connection.execute("SELECT time, text FROM events WHERE kind = ? ORDER BY time", (kind,))
        return list(rows)

    def _averages(self, which: int, span: int, since: float, until: float) -> list[Point]:
        rows = self._connection.execute(
            "SELECT time + span / 2.0, mean, lowest, highest, count FROM averages"
            " WHERE quantity = ? AND span = ? AND time + span > ? AND time + span <= ? ORDER BY time",
            (which, span, since, until),
        )
        return [Point(*row) for row in rows]

    def _begin_of_finer(self, which: int, span: int) -> float:
        """Return from which full minute or hour on there are finer values than averages over ``span`` seconds."""
        (readings,) = self._connection.execute("SELECT min(time) FROM readings WHERE quantity = ?", (which,)).fetchone()
        (minutes,) = self._connection.execute(
            "SELECT min(time) FROM averages WHERE quantity = ? AND span < ?", (which, span)
        ).fetchone()
        known = [-(-oldest // span) * span for oldest in (readings, minutes) if oldest is not None]
        return min(known, default=float("inf"))


class HistoryWriter:
    """Writes the history of a testbed's telemetry. Threads may share it.

    Args:
        path: of the file; it is made if it does not exist.
        largest: how large it may become, in bytes.

    Raises:
        DataError: it cannot be written, or is no history.
    """

    def __init__(self, path: str | Path, largest: float) -> None:
        self.path = Path(path)
        self._largest = largest
        self._lock = threading.Lock()
        self._ids: dict[str, int] = {}
        self._late: set[tuple[int, int]] = set()
        """Quantities and minutes of which readings came after their average was made."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"the history {self.path} cannot be written: {error}") from error
        try:
            self._make_tables()
        except (sqlite3.Error, DataError) as error:
            self._connection.close()
            if isinstance(error, DataError):
                raise
            raise DataError(f"the history {self.path} cannot be written: {error}") from error
        self._until = dict.fromkeys((_MINUTE, _HOUR), 0)
        self._until |= dict(self._connection.execute("SELECT span, until FROM averaged"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, readings: Iterable[tuple[str, Any, float, str | None]], units: Mapping[str, str | None]) -> None:
        """Keep readings: name, value, time and problem of each.

        Raises:
            DataError: the file cannot be written now; nothing was kept.
        """
        with self._writing():
            for name, value, taken, problem in readings:
                which = self._id(name, units.get(name))
                stored = int(value) if isinstance(value, bool) else value
                if isinstance(stored, int) and abs(stored) >= 2**63:
                    stored = float(stored)
                self._connection.execute(
                    "INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?)", (which, taken, stored, problem)
                )
                if taken < self._until[_MINUTE]:
                    self._late.add((which, int(taken // _MINUTE * _MINUTE)))

    def note(self, kind: str, text: str) -> None:
        """Keep that something happened now; ``kind`` is ``TRIP``."""
        with self._writing():
            self._connection.execute("INSERT INTO events VALUES (?, ?, ?)", (time.time(), kind, text))

    def grow_old(self, now: float | None = None) -> None:
        """Average what is old enough, and delete what is too old or too much.

        Args:
            now: seconds since 1970 UTC; None for the clock's.
        """
        now = time.time() if now is None else now
        with self._writing():
            self._average_minutes(now)
            self._average_hours(now)
            self._connection.executemany("INSERT OR REPLACE INTO averaged VALUES (?, ?)", self._until.items())
            self._connection.execute("DELETE FROM readings WHERE time < ?", (now - _KEEP_READINGS,))
            self._connection.execute("DELETE FROM averages WHERE span = ? AND time < ?", (_MINUTE, now - _KEEP_MINUTES))
        with self._lock:
            while True:
                if self._size() <= self._largest or not self._delete_oldest():
                    break

    def _make_tables(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == _FORMAT:
            return
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version or tables:
            raise DataError(f"{self.path} is no history of telemetry, or of another version of this program")
        self._connection.executescript(
            f"PRAGMA auto_vacuum = FULL; BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_FORMAT}; COMMIT;"
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Write in one transaction: all of it, or nothing."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    self._ids.clear()
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise DataError(f"the history {self.path} cannot be written: {error}") from error

    def _id(self, name: str, unit: str | None) -> int:
        if name not in self._ids:
            self._connection.execute(
                "INSERT INTO quantities (name, unit) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET unit = ?",
                (name, unit, unit),
            )
            (self._ids[name],) = self._connection.execute(
                "SELECT id FROM quantities WHERE name = ?", (name,)
            ).fetchone()
        return self._ids[name]

    def _average_minutes(self, now: float) -> None:
        begin, until = self._until[_MINUTE], int((now - _LATE) // _MINUTE * _MINUTE)
        if until > begin:
            self._connection.execute(_AVERAGE_READINGS, {"span": _MINUTE, "begin": begin, "end": until, "one": None})
            self._until[_MINUTE] = until
        for which, minute in self._late:
            late = {"span": _MINUTE, "begin": minute, "end": minute + _MINUTE, "one": which}
            self._connection.execute(_AVERAGE_READINGS, late)
            self._until[_HOUR] = min(self._until[_HOUR], minute // _HOUR * _HOUR)
        self._late.clear()

    def _average_hours(self, now: float) -> None:
        begin, until = self._until[_HOUR], int((now - _LATE) // _HOUR * _HOUR)
        if until > begin:
            self._connection.execute(_AVERAGE_AVERAGES, {"span": _HOUR, "finer": _MINUTE, "begin": begin, "end": until})
            self._until[_HOUR] = until

    def _size(self) -> int:
        """Return how large the file is, in bytes; what SQLite has freed, it uses again."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _delete_oldest(self) -> bool:
        """Delete a part of the oldest of what is finest; False if there is nothing left to delete."""
        for what, delete, *span in (
            ("SELECT min(time), max(time) FROM readings", "DELETE FROM readings WHERE time <= ?"),
            (_TIMES_OF_AVERAGES, _DELETE_AVERAGES, _MINUTE),
            (_TIMES_OF_AVERAGES, _DELETE_AVERAGES, _HOUR),
        ):
            first, last = self._connection.execute(what, span).fetchone()
            if first is not None and last > first:
                self._connection.execute(delete, (first + _PART * (last - first), *span))
                return True
        return False

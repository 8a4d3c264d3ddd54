"""Reading a run, finished or not."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import operator
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catkit_devices._base.html_table import html_table
from catkit_devices.datalog import database, directory, logfile, tables
from catkit_devices.datalog.arrays import decode
from catkit_devices.datalog.notes import Notes, read_notes
from catkit_devices.datalog.records import Arrays, Curve, Event, Figure, Fits, Location, Scalars, Tag, Value
from catkit_devices.datalog.values import from_json, is_plain_text, nanoseconds
from catkit_devices.errors import DataError, nearest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

__all__ = ["Moment", "RunReader"]

Moment = Any
"""Seconds since 1970 UTC, a datetime, or a time as a reader gives it (NumPy's datetime64)."""

_TABLES = {
    "scalar": "scalars", "array": "arrays", "curve": "objects", "figure": "objects", "fits": "objects",
    "value": "objects", "event": "objects",
}  # fmt: skip


# Records are only ever added, so the largest number is how many there are: counting a million takes too long for a
# list of runs.
_COUNT = """
SELECT ifnull((SELECT max(id) FROM scalars), 0) + ifnull((SELECT max(id) FROM arrays), 0)
    + ifnull((SELECT max(id) FROM objects), 0)
    - (SELECT count(*) FROM objects WHERE tag IN (SELECT id FROM tags WHERE kind = 'event'))
"""


class RunReader:
    """Reads a run, even while another process is writing it: each call returns what was committed before the call.

    What is read may be limited by time, and then by index. ``since`` and ``until`` (both inclusive) are seconds since
    1970 UTC, datetimes (UTC if they have no time zone) or the times of records as they are read. ``index`` is a number
    or a slice, as for a list, and counts the records within that time.

    Threads may share a reader. Every method raises :class:`~catkit_devices.errors.DataError` if what was asked for does
    not exist or is damaged, or if the reader is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._connection = database.connect_reader(self._path)

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self._path

    @property
    def information(self) -> dict[str, Any]:
        """What the run is: name, started, parameters, versions, git, user, host, pid and command."""
        return directory.read_description(self._path, directory.INFORMATION)

    @property
    def configuration(self) -> dict[str, Any]:
        """The configuration that the run had."""
        return directory.read_description(self._path, directory.CONFIGURATION)

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings of the testbed's devices at the ``start`` and at the ``end`` of the run, if they are kept.

        Each has the form of ``catkit-devices snapshot``, and its file ``settings-start.json`` or ``settings-end.json``
        can be given to ``catkit-devices restore``.
        """
        return {
            when: directory.read_description(self._path, file_name)
            for when, file_name in directory.SETTINGS.items()
            if (self._path / file_name).exists()
        }

    @property
    def outcome(self) -> dict[str, Any] | None:
        """How the run ended: ``outcome``, ``detail`` and ``time_ns``; None if it goes on or was killed."""
        rows = self._query("SELECT value FROM facts WHERE key = 'outcome'", ())
        if not rows:
            return None
        with self._understanding("its outcome"):
            outcome: dict[str, Any] = from_json(rows[0][0])
            if not {"outcome", "detail", "time_ns"} <= outcome.keys():
                raise ValueError(f"outcome, detail and time_ns were expected, got {outcome}")
            return outcome

    @property
    def record_count(self) -> int:
        """How many records the run has; events are not counted."""
        ((count,),) = self._query(_COUNT, ())
        return int(count)

    @property
    def notes(self) -> Notes:
        """What people have written about the run, and whether it has a star."""
        return read_notes(self._path)

    def _repr_html_(self) -> str:
        """Return what a notebook shows of a run: what ran, how it ended, and what it has recorded."""
        information, outcome = self.information, self.outcome or {"outcome": "no outcome yet", "detail": ""}
        title = f"{information['name']}, started {information['started']}: {outcome['outcome']} {outcome['detail']}"
        rows = [("parameter", name, "", value) for name, value in information.get("parameters", {}).items()]
        rows += [(tag.kind, tag.tag, tag.unit or "", tag.count) for tag in self.tags()]
        return html_table(title, ["kind", "name", "unit", "value or records"], rows)

    def log_text(self) -> str:
        """Return the whole log, of all processes, in time order; empty if nothing was logged."""
        try:
            return logfile.in_time_order(
                (self._path / logfile.FILE_NAME).read_text(encoding="utf-8", errors="backslashreplace")
            )
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise DataError(f"run {self._path}: the log cannot be read: {error}") from error

    def tags(self, kind: str | None = None) -> list[Tag]:
        """Return every tag (of one kind, if given) that has a record, in the order of their first appearance."""
        counts: dict[int, int] = {}
        for table in ("scalars", "arrays", "objects"):
            counts.update(self._query(f"SELECT tag, count(*) FROM {table} GROUP BY tag", ()))  # noqa: S608 - names
        rows = self._query("SELECT id, kind, tag, unit FROM tags ORDER BY id", ())
        return [
            Tag(row[1], row[2], row[3], counts[row[0]]) for row in rows if row[0] in counts and kind in (None, row[1])
        ]

    def scalars(
        self, tag: str, *, since: Moment | None = None, until: Moment | None = None, index: int | slice | None = None
    ) -> Scalars:
        """Return the numbers logged under a tag."""
        import numpy as np

        unit, rows = self._records("scalar", tag, "value", since, until, index)
        integers = bool(rows) and all(type(row[1]) is int for row in rows)
        values = [np.nan if row[1] is None else row[1] for row in rows]
        with self._understanding(f"scalar {tag!r}"):
            return Scalars(tag, unit, _times(rows), np.array(values, dtype=np.int64 if integers else np.float64))

    def arrays(
        self, tag: str, *, since: Moment | None = None, until: Moment | None = None, index: int | slice | None = None
    ) -> Arrays:
        """Return the arrays logged under a tag; each is read from disk when it is used."""
        unit, rows = self._records("array", tag, "file, offset, size, dtype, shape", since, until, index)
        with self._understanding(f"array {tag!r}"):
            locations = [
                Location(time_ns, file, offset, size, dtype, tuple(map(int, shape.split(","))) if shape else ())
                for time_ns, file, offset, size, dtype, shape in rows
            ]
            return Arrays(tag, unit, _times(rows), self._path, locations)

    def curves(
        self, tag: str, *, since: Moment | None = None, until: Moment | None = None, index: int | slice | None = None
    ) -> list[Curve]:
        """Return the curves logged under a tag."""
        unit, rows = self._records("curve", tag, "data, attributes", since, until, index)
        curves = []
        with self._understanding(f"curve {tag!r}"):
            for time_ns, data, attributes in rows:
                x, y = decode(data)
                curves.append(Curve(tag, time_ns, x, y, y_unit=unit, **from_json(attributes)))
        return curves

    def figures(
        self, tag: str, *, since: Moment | None = None, until: Moment | None = None, index: int | slice | None = None
    ) -> list[Figure]:
        """Return the pictures logged under a tag."""
        _, rows = self._records("figure", tag, "data", since, until, index)
        return [Figure(tag, time_ns, data) for time_ns, data in rows]

    def fits(
        self, tag: str, *, since: Moment | None = None, until: Moment | None = None, index: int | slice | None = None
    ) -> list[Fits]:
        """Return the FITS files logged under a tag."""
        _, rows = self._records("fits", tag, "data", since, until, index)
        return [Fits(tag, time_ns, data) for time_ns, data in rows]

    def values(
        self, tag: str, *, since: Moment | None = None, until: Moment | None = None, index: int | slice | None = None
    ) -> list[Value]:
        """Return the values that :meth:`Run.log <catkit_devices.datalog.Run.log>` recorded under a tag."""
        _, rows = self._records("value", tag, "data", since, until, index)
        with self._understanding(f"value {tag!r}"):
            return [Value(tag, time_ns, from_json(data)) for time_ns, data in rows]

    def events(self, kind: str | None = None) -> list[Event]:
        """Return the events of the run (of one kind, if given), in the order in which it was recorded."""
        if kind is not None and not is_plain_text(kind):
            return []  # such an event is refused when it is logged
        rows = self._query(
            "SELECT tags.tag, time, data FROM objects JOIN tags ON tags.id = objects.tag "
            "WHERE tags.kind = 'event' AND ? IN (tags.tag, '') ORDER BY objects.id",
            (kind or "",),
        )
        with self._understanding("an event"):
            return [Event(found, time_ns, **from_json(data)) for found, time_ns, data in rows]

    def to_pandas(self, *tags: str) -> Any:
        """Return scalars as a pandas DataFrame over time: a column for each tag, of all tags if none is given.

        At a time at which another tag has a record and this one has none, there is NaN. If a column with such gaps has
        whole numbers that a float cannot hold exactly (beyond 2**53), they stay exact: the column's type is ``Int64``,
        with NA in the gaps. The units are in ``attrs``. Needs pandas.
        """
        return tables.frame([self.scalars(tag) for tag in tags or self._scalar_tags()])

    def to_xarray(self, *tags: str) -> Any:
        """Return scalars as an xarray Dataset over time, as :meth:`to_pandas` does. Needs xarray and pandas.

        Where pandas has ``Int64``, a variable holds Python integers (its type is ``object``), with NaN in the gaps.
        """
        return tables.dataset([self.scalars(tag) for tag in tags or self._scalar_tags()])

    def _scalar_tags(self) -> list[str]:
        return [tag.tag for tag in self.tags("scalar")]

    def close(self) -> None:
        """Close the files; closing twice is harmless."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _records(
        self, kind: str, tag: str, columns: str, since: Moment | None, until: Moment | None, index: int | slice | None
    ) -> tuple[str | None, list[Any]]:
        """Return a tag's unit and rows of time and the columns."""
        known = is_plain_text(tag)  # other tags are refused when they are logged
        found = self._query("SELECT id, unit FROM tags WHERE kind = ? AND tag = ?", (kind, tag)) if known else []
        if not found:
            raise self._unknown(kind, tag)
        tag_id, unit = found[0]
        condition, arguments = "tag = ?", [tag_id]
        for name, comparison, moment in (("since", ">=", since), ("until", "<=", until)):
            if moment is not None:
                column, bound = _bound(moment, name)
                condition += f" AND {column} {comparison} ?"
                arguments.append(bound)
        query = f"SELECT time, {columns} FROM {_TABLES[kind]} WHERE {condition} ORDER BY id"  # noqa: S608 - our names
        if index is None or isinstance(index, slice):
            rows = self._query(query, arguments)
            return unit, rows if index is None else rows[index]
        try:
            index = operator.index(index)
        except TypeError:
            raise DataError(f"an index must be a whole number or a slice, got {index!r}") from None
        backwards = index < 0
        offset = -index - 1 if backwards else index
        ordered = f"{query} {'DESC' if backwards else 'ASC'} LIMIT 1 OFFSET ?"
        rows = self._query(ordered, [*arguments, offset]) if offset < _MANY else []
        if not rows:
            raise DataError(f"run {self._path}: {kind} {tag!r} has no record {index} in the time that was asked for")
        return unit, rows

    def _query(self, query: str, arguments: Any) -> list[Any]:
        with self._lock:
            try:
                return self._connection.execute(query, arguments).fetchall()
            except sqlite3.Error as error:
                raise database.explain(error, self._path, f"{database.FILE_NAME} cannot be read") from error

    @contextlib.contextmanager
    def _understanding(self, what: str) -> Iterator[None]:
        """Raise a DataError if what was read is not what a run writes."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, EOFError, RecursionError) as error:
            raise DataError(
                f"run {self._path}: {database.FILE_NAME} is damaged: {what} cannot be understood: {error}"
            ) from error

    def _unknown(self, kind: str, tag: str) -> DataError:
        known = self.tags()
        guess = nearest(tag, [item.tag for item in known if item.kind == kind]) if isinstance(tag, str) else None
        text = f"run {self._path}: no {kind} was logged as {tag!r}"
        others = sorted(item.kind for item in known if item.tag == tag)
        if others:
            text += f" (there is a {' and a '.join(others)} of that tag)"
        elif guess:
            text += f" (did you mean {guess!r}?)"
        return DataError(text)


def _bound(moment: Any, name: str) -> tuple[str, float | int]:
    """Return the SQL expression that ``since`` or ``until`` is compared with, and the limit as a number."""
    if isinstance(moment, float) and not math.isnan(moment):
        # A float of seconds since 1970 is rounded, to about a quarter of a microsecond. The times of the records are
        # rounded in the same way here, so that the time of a record, in seconds, finds that record.
        return "time / 1e9", float(moment)
    if isinstance(moment, dt.datetime) and moment == moment and moment.year not in _YEARS:
        return "time", _FIRST if moment.year < _YEARS.start else _LAST
    return "time", nanoseconds(moment, name, utc=True)


_FIRST, _LAST = -(2**63), 2**63 - 1
"""The first and the last time that there can be, in nanoseconds since 1970 UTC."""
_YEARS = range(1678, 2262)
"""Years that lie completely between these two times."""
_MANY = 2**62
"""More records than a table can have; SQLite accepts no offset of 2**63 or more."""


def _times(rows: list[Any]) -> npt.NDArray[np.datetime64]:
    import numpy as np

    times: npt.NDArray[np.datetime64] = np.array([row[0] for row in rows], dtype=np.int64).astype("datetime64[ns]")
    return times

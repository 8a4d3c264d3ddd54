"""Recording a run."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from catkit_devices.datalog import contents, database, directory, information, logfile
from catkit_devices.datalog.arrays import ArrayFile
from catkit_devices.datalog.checkpointing import Checkpointer
from catkit_devices.datalog.quantities import conversion, magnitude, unit_text
from catkit_devices.datalog.values import is_plain_text, nanoseconds, number, plain_array, refuse_unit, to_json
from catkit_devices.errors import DataError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

__all__ = ["Run"]

# Statements of the database of a run. A tag is written once, and is a number from then on.
_SCALAR = "INSERT INTO scalars (tag, time, value) VALUES (?, ?, ?)"
_ARRAY = "INSERT INTO arrays (tag, time, file, offset, size, dtype, shape) VALUES (?, ?, ?, ?, ?, ?, ?)"
_OBJECT = "INSERT INTO objects (tag, time, data, attributes) VALUES (?, ?, ?, ?)"
_OUTCOME = "INSERT OR REPLACE INTO facts (key, value) VALUES ('outcome', ?)"
_NEW_TAG = "INSERT OR IGNORE INTO tags (kind, tag, unit) VALUES (?, ?, ?)"
_FIND_TAG = "SELECT id, unit FROM tags WHERE kind = ? AND tag = ?"


_PLAIN = "text that is valid UTF-8 and without NUL"
"""What every format of file can hold: what the messages say of tags, units and labels."""


class _Tag(NamedTuple):
    """A tag to which records belong, its unit, and how numbers in the unit of the request are converted to it."""

    id: int
    unit: str | None
    convert: Callable[[Any], Any] | None


class Run:
    """Writes what a run records; made by :meth:`create`, or by :meth:`open` in another process of the same run.

    When a ``log...`` call has returned, its record is in the run's files, whatever happens to this process afterwards,
    SIGKILL included. (After a power failure the newest records may be missing; all others are intact.) A call that
    raised has recorded nothing. Threads may share a run, and several processes may open it; records are in the order in
    which they were committed. :class:`~catkit_devices.datalog.RunReader` can read the run at the same time.

    A record belongs to a *tag*. Each kind of record has tags of its own. A tag has one unit, that of its first record:
    numbers in another unit are converted to it, and numbers that cannot be converted (V after A) are refused. Values
    are plain numbers, or quantities of pint, astropy or unyt. The time of a record is now, or ``at``: in seconds since
    1970 UTC, or a datetime with its time zone.

    Every method raises :class:`~catkit_devices.errors.DataError` when a record cannot be written: on a full disk, in a
    directory that became read-only, after :meth:`close`. What was recorded before stays readable.
    """

    def __init__(self, path: Path) -> None:
        """Open the run that is at ``path`` for writing; user code calls :meth:`create` or :meth:`open`."""
        self._path = path
        self._lock = threading.Lock()
        self._scalar_tags: dict[tuple[str, Any], _Tag] = {}
        self._tags: dict[tuple[str, str, str | None], _Tag] = {}
        self._arrays: ArrayFile | None = None
        self._handler: logfile.LogFileHandler | None = None
        self._closed = False
        self._connection = database.connect_writer(path)
        self._checkpointer = Checkpointer(path, self._connection, self._lock)

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        name: str,
        *,
        configuration: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        source: str | os.PathLike[str] | None = None,
        directory_name: str | None = None,
    ) -> Self:
        """Start a run, in a directory of its own: ``<root>/<time in UTC>_<name>``.

        Args:
            root: where runs are kept; made when it is not there.
            name: what ran; letters, digits and ``._+-``.
            configuration: the whole configuration, kept as ``configuration.json``.
            parameters: the parameters of this run, kept in ``run.json`` with versions, git revision, user and host.
            source: the file or directory whose git revision is kept; the current directory by default.
            directory_name: an exact name for the directory instead of time and name.

        Raises:
            DataError: the directory exists, cannot be made or written, or would be on a network file system.
        """
        path, started = directory.make_directory(Path(root), name, directory_name)
        try:
            directory.write_description(
                path,
                {
                    "name": name,
                    "started": started.isoformat(),
                    "parameters": dict(parameters or {}),
                    **information.gather(None if source is None else Path(source)),
                },
                dict(configuration or {}),
            )
            database.create(path)
            return cls(path)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)  # nothing was recorded in it
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a run that exists, to record more in it.

        Raises:
            DataError: it is not a run, cannot be written, or is on a network file system.
        """
        directory.read_description(Path(path), directory.INFORMATION)
        return cls(Path(path))

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self._path

    @property
    def handler(self) -> logfile.LogFileHandler:
        """The handler for Python's logging that writes to the run's ``log.txt``; closed together with the run.

        Raises:
            DataError: the file cannot be opened, or the run is closed.
        """
        with self._lock:
            self._refuse_when_closed()
            if self._handler is None:
                try:
                    self._handler = logfile.LogFileHandler(self._path / logfile.FILE_NAME)
                except OSError as error:
                    raise database.explain(error, self._path, "the log cannot be opened") from error
            return self._handler

    def log_scalar(self, tag: str, value: Any, unit: Any = None, *, at: float | None = None) -> None:
        """Record one real number (NaN and infinities too; a truth value as 0 or 1).

        Args:
            tag: what was measured.
            value: a number, or a pint quantity.
            unit: its unit as text, or a unit of pint, astropy or unyt; numbers are converted to the tag's first unit.
            at: when it was measured, in seconds since 1970 UTC or as a datetime with its time zone; now by default.
        """
        if type(value) is not float:
            value, unit = magnitude(value, unit, f"scalar {tag!r}")
            value = number(value, f"scalar {tag!r}")
        moment = None if at is None else nanoseconds(at, f"scalar {tag!r}")
        try:
            tag_id, _, convert = self._scalar_tags[tag, unit]
        except (KeyError, TypeError):
            tag_id, _, convert = found = self._declare(
                "scalar", tag, None if unit is None else unit_text(unit, f"scalar {tag!r}")
            )
            if unit is None or isinstance(unit, str):
                self._scalar_tags[tag, unit] = found
        if convert is not None:
            value = number(convert(value), f"scalar {tag!r}")
        with self._lock:
            moment = time.time_ns() if moment is None else moment
            try:
                self._connection.execute(_SCALAR, (tag_id, moment, value))
            except sqlite3.Error as error:
                raise database.explain(error, self._path, f"{tag!r} is not recorded") from error
            self._checkpointer.note()

    def log_array(self, tag: str, array: npt.ArrayLike, unit: Any = None, *, at: float | None = None) -> None:
        """Record an array, of any shape and of any type except Python objects.

        Args:
            tag: what was measured.
            array: the array, or a quantity of pint, astropy or unyt that holds one; or a list of these, which either
                all have a unit or all have none.
            unit: the unit of its elements, which must be numbers then; quantities are converted to it, or without it
                to the unit of the first.
            at: when it was measured, in seconds since 1970 UTC; now by default.
        """
        bare, unit = magnitude(array, unit, f"array {tag!r}")
        data = plain_array(bare, f"array {tag!r}")
        refuse_unit(data, unit, f"array {tag!r}")
        moment = None if at is None else nanoseconds(at, f"array {tag!r}")
        tag_id, known, convert = self._declare("array", tag, unit)
        refuse_unit(data, known, f"array {tag!r}")
        if convert is not None:
            data = plain_array(convert(data), f"array {tag!r}")
        with self._lock:
            self._refuse_when_closed()
            moment = time.time_ns() if moment is None else moment
            try:
                if self._arrays is None:
                    self._arrays = ArrayFile(self._path)
                # First the array, then its row: so a row never points to bytes that are not in the file.
                offset, size = self._arrays.append(data)
                shape = ",".join(map(str, data.shape))
                row = (tag_id, moment, self._arrays.name, offset, size, str(data.dtype), shape)
                self._connection.execute(_ARRAY, row)
            except (sqlite3.Error, OSError) as error:
                raise database.explain(error, self._path, f"{tag!r} is not recorded") from error
            self._checkpointer.note()

    def log_curve(
        self,
        tag: str,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        x_unit: Any = None,
        y_unit: Any = None,
        x_label: str = "",
        y_label: str = "",
        at: float | None = None,
    ) -> None:
        """Record a curve: two sequences of the same length, plain or with units, and labels for the axes."""
        for name, label in (("x_label", x_label), ("y_label", y_label)):
            if not is_plain_text(label):
                raise DataError(f"curve {tag!r}: {name} must be {_PLAIN}, got {label!r}")
        x, x_unit = magnitude(x, x_unit, f"curve {tag!r}: x")
        y, y_unit = magnitude(y, y_unit, f"curve {tag!r}: y")
        _check_unit(x_unit, f"curve {tag!r}: x")
        labels = to_json({"x_unit": x_unit or None, "x_label": x_label, "y_label": y_label}, f"curve {tag!r}")
        contents.curve(tag, x, y, x_unit, y_unit)  # refused before the tag is declared
        nanoseconds(at, f"curve {tag!r}")
        _, known, convert = self._declare("curve", tag, y_unit)
        y = y if convert is None else convert(plain_array(y, f"curve {tag!r}: y"))
        self._store("curve", tag, contents.curve(tag, x, y, x_unit, known), y_unit, at, labels)

    def log_figure(self, tag: str, figure: Any, *, at: float | None = None) -> None:
        """Record a picture: a matplotlib figure, drawn as PNG, or the bytes of a PNG file."""
        self._store("figure", tag, contents.picture(tag, figure), None, at)

    def log_fits(self, tag: str, fits: Any, *, at: float | None = None) -> None:
        """Record a FITS file: its bytes, its path, or an astropy HDU or list of HDUs."""
        self._store("fits", tag, contents.fits_file(tag, fits), None, at)

    def log(self, tag: str, value: Any, *, at: float | None = None) -> None:
        """Record any value that can be written as JSON: dictionaries, lists, text, dates, dataclasses."""
        self._store("value", tag, to_json(value, f"value {tag!r}").encode(), None, at)

    def log_event(self, kind: str, text: str, *, at: float | None = None, **facts: Any) -> None:
        """Record an event that concerns the run itself, such as a mutex that was broken or a check that tripped.

        Args:
            kind: what kind of event, such as ``safety_tripped``; readers select events by it.
            text: what happened, as a sentence.
            at: when it happened, in seconds since 1970 UTC; now by default.
            **facts: the facts in the text, as values that JSON can express.
        """
        if not isinstance(text, str):
            raise DataError(f"event {kind!r}: what happened must be said as text, got {text!r}")
        self._store("event", kind, to_json({"text": text, "facts": facts}, f"event {kind!r}").encode(), None, at)

    def keep_settings(self, when: Literal["start", "end"], settings: Mapping[str, Any]) -> None:
        """Keep the settings of the devices, as they are now, in a file of their own.

        Args:
            when: at the start of the run or at its end.
            settings: of the devices, as values that JSON can express.
        """
        directory.write_settings(self._path, when, settings)

    def set_outcome(self, outcome: str, detail: str = "") -> None:
        """Record how the run ended (``finished``, ``failed``, ``stopped``) and why; a killed run has no outcome."""
        if not (isinstance(outcome, str) and isinstance(detail, str)):
            raise DataError(f"the outcome of a run and its detail must be text, got {outcome!r} and {detail!r}")
        text = to_json({"outcome": outcome, "detail": detail, "time_ns": time.time_ns()}, "outcome")
        with self._lock:
            self._execute(_OUTCOME, (text,), "the outcome is not recorded")

    def close(self) -> None:
        """End recording in this process; closing twice is harmless.

        The last process that closes the run leaves one database file; its ``-wal`` and ``-shm`` files are gone.
        """
        with self._lock:
            if self._closed:
                return
        if self._handler is not None and self._handler.lost:
            lost = self._handler.lost
            with contextlib.suppress(DataError):  # the disk is full; the reader of the log has been told already
                self.log_event("log_incomplete", f"{lost} records could not be written to the log", records=lost)
        with self._lock:
            self._closed = True
        self._checkpointer.end()
        with self._lock:
            try:
                with contextlib.suppress(sqlite3.OperationalError):  # another process has it open: it stays in WAL mode
                    self._connection.execute("PRAGMA busy_timeout = 0")
                    self._connection.execute("PRAGMA journal_mode = DELETE")
                if self._arrays is not None:
                    self._arrays.close()
            except OSError as error:
                raise database.explain(error, self._path, "closing failed") from error
            finally:
                self._connection.close()
                if self._handler is not None:
                    self._handler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Run {self._path}{' (closed)' if self._closed else ''}>"

    def _store(self, kind: str, tag: str, data: bytes, unit: str | None, at: float | None, more: str = "{}") -> None:
        moment = None if at is None else nanoseconds(at, f"{kind} {tag!r}")
        tag_id = self._declare(kind, tag, unit).id
        with self._lock:
            moment = time.time_ns() if moment is None else moment
            self._execute(_OBJECT, (tag_id, moment, data, more), f"{tag!r} is not recorded")
            self._checkpointer.note(len(data))

    def _declare(self, kind: str, tag: str, unit: str | None) -> _Tag:
        """Return a tag, known or new, with what converts numbers from ``unit`` to its unit; None means its own unit."""
        found = self._tags.get((kind, tag, unit)) if isinstance(tag, str) else None
        if found is not None:
            return found
        if not tag or not is_plain_text(tag):
            raise DataError(f"a tag must be {_PLAIN}, and not empty, got {tag!r}")
        _check_unit(unit, f"{kind} {tag!r}")
        with self._lock:
            self._refuse_when_closed()
            problem = f"{tag!r} is not recorded"
            self._execute(_NEW_TAG, (kind, tag, unit or None), problem)
            tag_id, known = self._execute(_FIND_TAG, (kind, tag), problem).fetchone()
        refusal = f"{kind} {tag!r} is in {known or 'no unit'} in this run and cannot be logged in {unit or 'no unit'}"
        convert = None if unit is None else conversion(refusal, unit, known)
        found = self._tags[kind, tag, unit] = _Tag(int(tag_id), known, convert)
        return found

    def _execute(self, statement: str, values: tuple[Any, ...], problem: str) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise database.explain(error, self._path, problem) from error

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise DataError(f"run {self._path} is closed: nothing more can be recorded in it")


def _check_unit(unit: str | None, what: str) -> None:
    if unit is not None and not is_plain_text(unit):
        raise DataError(f"{what}: a unit must be {_PLAIN}, got {unit!r}")

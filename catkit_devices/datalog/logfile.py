"""The log of a run, written by all of its processes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["FILE_NAME", "LogFileHandler", "formatter", "in_time_order"]

FILE_NAME = "log.txt"
"""The file with the log, in the directory of a run."""
_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-8s %(processName)s (%(process)d) %(threadName)s %(name)s: %(message)s"
"""A line of the log; times are in UTC, hence the Z."""


_BEGINNING = re.compile(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z ", re.MULTILINE)
"""The beginning of a record; further lines of a record have no time."""


def in_time_order(text: str) -> str:
    """Return a log with its records sorted by time: where many processes write, the file is not exactly sorted."""
    starts = [match.start() for match in _BEGINNING.finditer(text)]
    if not starts:
        return text
    ends = [*starts[1:], len(text)]
    records = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    before = text[: starts[0]]
    return before + "".join(sorted(records, key=lambda record: record[:24]))


class LogFileHandler(logging.Handler):
    """Appends log records to a file that other processes append to as well.

    Each record is one write at the end of the file, so records of several processes never mix, and are in the order
    in which they were written. A record that was handled is in the file even if the process is then killed (SIGKILL).

    A record that cannot be written, because the disk is full for example, is lost. The first of them is told on stderr,
    and when the file can be written again it says how many are missing.

    Args:
        path: the file; made when it is not there.
        level: the lowest level that is written.
        tell: called with a text when the first record is lost, instead of writing the text to stderr.
    """

    def __init__(self, path: Path, level: int = logging.NOTSET, tell: Callable[[str], object] | None = None) -> None:
        super().__init__(level)
        self.setFormatter(formatter())
        self._path = path
        self._tell = _to_stderr if tell is None else tell
        self._missing = 0
        """Records that were lost since the last one that was written."""
        self._torn = False
        """Whether the file may end in the middle of a line."""
        self.lost = 0
        """How many records were lost in all."""
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; after :meth:`close` this does nothing."""
        if self._descriptor is None:
            return
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - the arguments do not fit the message, as a rule
            self.handleError(record)
            return
        if self._missing:
            line = self._gap(record) + line
        data = (("\n" if self._torn else "") + line).encode("utf-8", "backslashreplace")
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._lose(os.strerror(error.errno) if error.errno else str(error))
            return
        self._torn = written < len(data)
        if self._torn:
            self._lose("the file cannot grow")
        else:
            self._missing = 0

    def _gap(self, record: logging.LogRecord) -> str:
        """Return the line that says how many records are missing before this one."""
        gap = logging.makeLogRecord({
            **record.__dict__, "levelno": logging.WARNING, "levelname": "WARNING", "name": __name__,
            "msg": f"{self._missing} records of this process are missing here: the log could not be written",
            "args": (), "exc_info": None, "exc_text": None, "stack_info": None,
        })  # fmt: skip
        return self.format(gap) + "\n"

    def _lose(self, reason: str) -> None:
        self.lost += 1
        self._missing += 1
        if self.lost == 1:
            self._tell(f"{self._path} is incomplete: {reason}; records are lost until it can be written again")

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self.acquire()
        try:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        finally:
            self.release()
        super().close()


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:  # a process without a terminal may have none
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"warning: {text}\n")


class _UtcFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)


def formatter() -> logging.Formatter:
    """Return what makes a line of a log file of a record, with its time in UTC."""
    return _UtcFormatter(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")

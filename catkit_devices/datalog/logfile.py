"""The log of a run, written by all of its processes."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

__all__ = ["FILE_NAME", "LogFileHandler", "in_time_order"]

FILE_NAME = "log.txt"
_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-8s %(processName)s (%(process)d) %(threadName)s %(name)s: %(message)s"


_BEGINNING = re.compile(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z ", re.MULTILINE)


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

    Each record is one write at the end of the file, so records of several processes never mix, and stand in the order
    in which they were written. A record that was handled is in the file even if the process is then killed (SIGKILL).

    Args:
        path: the file; made when it is not there.
        level: the lowest level that is written.
    """

    def __init__(self, path: Path, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.setFormatter(_UtcFormatter(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S"))
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; after :meth:`close` this does nothing."""
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except (OSError, TypeError, ValueError):
            self.handleError(record)

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


class _UtcFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)

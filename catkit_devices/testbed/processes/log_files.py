"""The files in which a testbed writes down what happens: its log, and its audit trail. Their size is limited."""

from __future__ import annotations

import json
import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog.logfile import formatter

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AUDIT", "LOG", "LogFiles"]

LOG = "testbed.log"
"""The log: what the testbed's processes say, with times in UTC."""
AUDIT = "audit.jsonl"
"""The audit trail: one JSON object in each line."""
_SIZE = 10_000_000
"""Bytes of a file; then it is renamed (``.1``, ``.2`` ...), and a new one is begun: some weeks of a quiet testbed."""
_OLD = 9
"""How many old files are kept, so that each kind takes 100 MB at most."""

_log = logging.getLogger(__name__)


class LogFiles:
    """Writes the log and the audit trail of one testbed; used in the testbed's process only.

    The directory is made with the first record. A file that cannot be written (the disk is full, nobody may write
    there) stops nothing: that is told once, and what could not be written is lost.

    Args:
        directory: of the files.
        in_this_process: whether the warnings and errors that this process logs itself are written too.
    """

    def __init__(self, directory: Path, *, in_this_process: bool = False) -> None:
        self._log = _File(directory / LOG, formatter())
        self._audit = _File(directory / AUDIT, logging.Formatter("%(message)s"))
        self._own = _Own(self._log) if in_this_process else None
        if self._own is not None:
            logging.getLogger("catkit_devices").addHandler(self._own)

    def log(self, record: logging.LogRecord) -> None:
        """Write a record that was collected from another process, or is told by the testbed itself."""
        vars(record)["in_log_file"] = True
        self._log.handle(record)

    def audit(self, entries: Sequence[dict[str, Any]]) -> None:
        """Write entries of the audit trail."""
        for one in entries:
            text = json.dumps(one, ensure_ascii=False)
            self._audit.handle(logging.makeLogRecord({"msg": text}))

    def close(self) -> None:
        """Close the files."""
        if self._own is not None:
            logging.getLogger("catkit_devices").removeHandler(self._own)
        self._log.close()
        self._audit.close()


class _Own(logging.Handler):
    """Passes on what this process logs, unless it was collected and is in the file already.

    Where a program has set up no logging, Python prints warnings on standard error. It does not where there is a
    handler, as this one; so this one has them printed.
    """

    def __init__(self, file: _File) -> None:
        super().__init__(logging.WARNING)
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "in_log_file", False):
            self._file.handle(record)
        if logging.lastResort is not None and not self._others(record.name):
            logging.lastResort.handle(record)

    def _others(self, name: str) -> bool:
        """Return whether a logger of this name has other handlers."""
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


class _File(RotatingFileHandler):
    """One file; an error is told once, and the next record tries again."""

    def __init__(self, path: Path, how: logging.Formatter) -> None:
        super().__init__(
            path, maxBytes=_SIZE, backupCount=_OLD, encoding="utf-8", errors="backslashreplace", delay=True
        )
        self.setFormatter(how)
        self._told = False

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - as logging calls it
        if self._told:
            return
        self._told = True  # before the message, which comes here too
        import sys

        error = sys.exception()
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        _log.warning("%s cannot be written, and what happens is not kept there: %s", self.baseFilename, why)

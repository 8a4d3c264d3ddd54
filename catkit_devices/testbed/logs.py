"""What the servers and the safety monitor have to say: brought to the testbed's process, and into the log of every run.

Their terminal is not theirs to write to, and each of their messages belongs to whatever runs at the time.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from catkit_devices.errors import CatkitDevicesError
from catkit_devices.multiprocessing import SharedMemoryManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["LogCollector", "forward_logs", "write_to_runs"]

_QUEUE = "log"
"""Name of the queue of log records on the testbed's server."""
_LAST_TIMEOUT = 2.0
_NAME = "catkit_devices"


class _Forwarder(logging.Handler):
    """Hands records to a thread, since whoever logs may hold locks that talking to a server would need."""

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server
        self._records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        threading.Thread(target=self._forward, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        # As text: what it was made of may not travel.
        record.msg = self.format(record)
        record.args = record.exc_info = record.exc_text = record.stack_info = None
        self._records.put(record)

    def _forward(self) -> None:
        records = None
        while True:
            record = self._records.get()
            try:
                if records is None:
                    manager = SharedMemoryManager(self._server)
                    manager.connect()
                    records = manager.get_queue(_QUEUE)
                records.put(record)
            except (CatkitDevicesError, OSError):
                if logging.lastResort is not None and record.levelno >= logging.WARNING:
                    logging.lastResort.handle(record)  # nobody is left to tell it to but the terminal


def forward_logs(server: str) -> None:
    """Send what this process logs to the testbed's process from now on.

    Args:
        server: name of the testbed's server.
    """
    logger = logging.getLogger(_NAME)
    logger.addHandler(_Forwarder(server))
    logger.setLevel(logging.INFO)
    logger.propagate = False


class LogCollector:
    """Takes what the other processes of a testbed log: into the log of each run, and to this process's own logging.

    Args:
        manager: of the testbed's server.
        runs: tells the directories of the runs that go on.
    """

    def __init__(self, manager: SharedMemoryManager, runs: Callable[[], Iterable[Path]]) -> None:
        self._queue = manager.get_queue(_QUEUE)
        self._runs = runs
        self._thread = threading.Thread(target=self._collect, name="log", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Take what has come, within a bounded time, and end."""
        try:
            self._queue.put(None)
        except CatkitDevicesError:
            return  # the server is gone, and the thread with it
        self._thread.join(_LAST_TIMEOUT)

    def _collect(self) -> None:
        while True:
            try:
                record = self._queue.get()
            except (CatkitDevicesError, EOFError, OSError):
                return
            if record is None:
                return
            write_to_runs(record, self._runs())
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)


def write_to_runs(record: logging.LogRecord, runs: Iterable[Path]) -> None:
    """Append a record to the log of each run."""
    from catkit_devices.datalog.logfile import FILE_NAME, LogFileHandler

    for run in runs:
        try:
            handler = LogFileHandler(run / FILE_NAME)
        except OSError:
            continue  # a run whose directory is gone has no log to keep
        handler.handle(record)
        handler.close()

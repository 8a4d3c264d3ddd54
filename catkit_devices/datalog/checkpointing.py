"""Moving what was committed from the write-ahead log into the database, in a thread of its own.

SQLite calls this a checkpoint, and makes one by itself, every thousand pages, inside of the statement that writes the
thousandth page. This statement waits for the disk, takes milliseconds instead of microseconds, and disturbs a control
loop. Here another thread does it while the loop continues. The loop must wait only when the log has become long: until
the few pages that are left have been moved and the log can start again from its beginning.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from typing import TYPE_CHECKING

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.datalog import database

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Checkpointer"]

_EVERY = 1000
"""Pages of 4 kB that are committed between two checkpoints; SQLite's default."""
_PAGE = 4096
"""Bytes of a page of the database; SQLite's default."""
_END_TIMEOUT = 30.0
"""Seconds for the last checkpoint, when the run ends."""
_LONGEST = 16_000
"""Length of the log, in pages, from which the writers wait until all of it has been moved: 64 MB on disk."""

_log = logging.getLogger(__name__)


class Checkpointer:
    """Keeps the write-ahead log of a run short. A run with little in it never starts its thread.

    Args:
        directory: of the run.
        connection: the writer's. When the thread has started, SQLite's own checkpoints on it are switched off.
        lock: the writer holds it while it uses the connection.
    """

    def __init__(self, directory: Path, connection: sqlite3.Connection, lock: threading.Lock) -> None:
        self._directory = directory
        self._connection = connection
        self._lock = lock
        self._pages = 0
        self._thread: threading.Thread | None = None
        self._wake = InterruptSafeEvent()
        self._ending = False

    def note(self, size: int = 0) -> None:
        """Count a record that was committed, of ``size`` bytes if it is large; the caller holds the lock."""
        self._pages += 1 + size // _PAGE
        if self._pages < _EVERY:
            return
        self._pages = 0
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads can be started: SQLite goes on making checkpoints by itself
                return
            self._thread = thread
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._wake.set()

    def end(self) -> None:
        """End the thread, within a bounded time; the caller does not hold the lock."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_END_TIMEOUT)

    def _work(self) -> None:
        try:
            connection = database.connect_writer(self._directory)
            try:
                while True:
                    if self._ending:
                        break
                    self._wake.wait()
                    self._wake.clear()
                    self._move(connection)
            finally:
                connection.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the writer's next statement meets and reports it
            _log.warning(
                "run %s: the thread for checkpoints ended, the writer makes them now: %s", self._directory, error
            )
            with self._lock:
                if not self._ending:
                    self._connection.execute("PRAGMA wal_autocheckpoint = 1000")

    def _move(self, connection: sqlite3.Connection) -> None:
        if self._ending:
            return
        if _moved(connection) >= _LONGEST:
            with self._lock:
                if not self._ending:
                    _moved(connection)


def _moved(connection: sqlite3.Connection) -> int:
    """Move what can be moved without waiting for other connections; return how many pages the log has."""
    _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages)

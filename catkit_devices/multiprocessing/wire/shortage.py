"""Shortage of memory, descriptors or threads: how it is recognised, and how a server still answers its clients."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from multiprocessing import connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from catkit_devices.multiprocessing.wire.forking import making, private, socket_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Reserve", "shortage"]

_WORDS = {
    errno.EMFILE: "out of descriptors (open files), it has reached its limit",
    errno.ENFILE: "out of descriptors (open files), its whole computer has reached the limit",
    errno.ENOMEM: "out of memory",
    errno.ENOBUFS: "out of memory for sending",
}
"""What the process has run out of, by error of the operating system."""
_NO_THREAD = "can't start new thread"
"""CPython's message if the operating system starts no more threads."""


def shortage(error: BaseException) -> str | None:
    """Return what the process that raised ``error`` has run out of; None if the error has another cause."""
    if isinstance(error, MemoryError):
        return _WORDS[errno.ENOMEM]
    if isinstance(error, OSError):
        return _WORDS.get(error.errno or 0)
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return "out of threads"
    return None


class Reserve:
    """A thread and a descriptor that a server keeps in reserve, to answer clients when there are no others left.

    Args:
        listener: the server's, to which clients connect.
        answer: called in the reserve thread, with a connection and what the server has run out of.
    """

    def __init__(self, listener: Any, answer: Callable[[connection.Connection, str], None]) -> None:
        self._listener = listener
        self._answer = answer
        self._waiting: SimpleQueue[tuple[connection.Connection, str]] = SimpleQueue()
        self._guard = threading.Lock()
        self._descriptor: int | None = None
        self._restore()
        threading.Thread(target=self._serve, name="reserve", daemon=True).start()

    def take(self, conn: connection.Connection, lacking: str) -> None:
        """Answer a connection for which there is no thread."""
        self._waiting.put((conn, lacking))

    def accept(self) -> connection.Connection | None:
        """Accept the connection for which there was no descriptor, with the descriptor that is kept in reserve.

        None if no connection waits, or if the reserve is in use.
        """
        if not connection.wait([socket_of(self._listener)], 0):
            return None
        with self._guard:
            self._restore()
            if self._descriptor is None:
                return None
            os.close(self._descriptor)
            self._descriptor = None
            try:
                with making:
                    conn: connection.Connection = self._listener.accept()
                    private(conn.fileno())
            except OSError:  # another thread was quicker
                return None
        return conn

    def _restore(self) -> None:
        """Keep a descriptor in reserve again, if there is a free one; the caller holds the guard."""
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                self._descriptor = os.open(os.devnull, os.O_RDONLY)

    def _serve(self) -> None:
        while True:
            conn, lacking = self._waiting.get()
            self._answer(conn, lacking)
            del conn
            with self._guard:
                self._restore()

"""An event that the main thread can use even if Ctrl-C comes at any moment.

``threading.Event`` and ``with condition:`` run Python code after they have acquired their lock and before they can
release it. If Ctrl-C comes there, the lock is never released, and every other thread that sets the event or waits for
it hangs for ever. A plain lock of the interpreter has no such gap, so the event is made of plain locks.
"""

from __future__ import annotations

import contextlib
import threading

__all__ = ["InterruptSafeEvent"]


class InterruptSafeEvent:
    """As ``threading.Event``; it stays usable if any of its methods is interrupted."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[threading.Lock] = []
        """One lock for each waiting thread, held until the event is set; no other thread acquires it."""

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._set

    def set(self) -> None:
        """Set it: all waits end, and new ones return at once."""
        self._set = True
        try:
            self._wake()
        finally:
            self._wake()  # wakes the remaining threads if the first call was interrupted

    def _wake(self) -> None:
        for waiting in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # it is awake already
                waiting.release()

    def clear(self) -> None:
        """Unset it: new waits wait again."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` seconds; return whether it is."""
        if self._set:
            return True
        mine = threading.Lock()
        mine.acquire()
        woken = False
        try:
            self._waiting.append(mine)
            if not self._set:  # else it was set in the meantime, perhaps before this lock was in the list
                woken = mine.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        finally:
            with contextlib.suppress(ValueError):  # it was interrupted before it was on the list
                self._waiting.remove(mine)
        return woken or self._set

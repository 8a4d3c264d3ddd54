"""What the main thread can wait for, and tell others by, though Ctrl-C strikes at any moment.

``threading.Event`` and ``with condition:`` run Python code between taking their lock and being able to give it back.
Where Ctrl-C strikes there, the lock is never given back, and every other thread that sets or awaits the event hangs for
ever. A lock of the interpreter's own, entered by ``with``, has no such gap: so a condition is made over one that is
entered by itself.
"""

from __future__ import annotations

import contextlib
import threading

__all__ = ["Event"]


class Event:
    """As ``threading.Event``; whoever is interrupted in any of its methods leaves it as usable as it was."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[threading.Lock] = []
        """One lock for each that waits, held until the event is set: nobody else ever needs it."""

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._set

    def set(self) -> None:
        """Let go on all that wait, and all that will."""
        self._set = True
        try:
            self._wake()
        finally:
            self._wake()  # the rest, where the first was interrupted

    def _wake(self) -> None:
        for waiting in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # it is awake already
                waiting.release()

    def clear(self) -> None:
        """Let wait from now on."""
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
            if not self._set:  # or it has been set since, perhaps before this one was on the list
                woken = mine.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        finally:
            with contextlib.suppress(ValueError):  # it was interrupted before it was on the list
                self._waiting.remove(mine)
        return woken or self._set

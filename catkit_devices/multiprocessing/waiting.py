"""Waiting for something on a server, first come first served, until it comes or the waiter's process is gone."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.owner import Call

__all__ = ["Ticket", "Waiting"]


class Ticket:
    """One waiter: granted a value, or withdrawn because its call was cancelled."""

    __slots__ = ("_wake", "call", "granted", "value")

    def __init__(self, call: Call, value: Any = None) -> None:
        self.call = call
        self.granted = False
        self.value = value
        self._wake = threading.Lock()
        self._wake.acquire()

    def grant(self, value: Any = None) -> None:
        """Let it go on; the object's guard is held."""
        self.granted, self.value = True, value
        self._woken()

    def wait(self, timeout: float | None) -> None:
        """Wait for the grant, the timeout (None: none) or the cancellation, whichever comes first."""
        self.call.on_cancel(self._woken)
        try:
            self._wake.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        finally:
            self.call.on_cancel(None)

    def _woken(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            return  # granted and cancelled at the same moment


class Waiting:
    """Waiters in the order in which they came."""

    _fixed = True

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tickets: deque[Ticket] = deque()

    def _wait(self, ticket: Ticket, timeout: float | None) -> bool:
        """Return whether the ticket (queued under the guard) was granted in time.

        Raises:
            OperationCancelled: the waiting process has ended or interrupted the wait; nothing was granted.
        """
        try:
            ticket.wait(timeout)
        finally:
            with self._guard:
                if not ticket.granted:
                    self._tickets.remove(ticket)
                elif ticket.call.reason is not None:
                    self._take_back(ticket)
        ticket.call.check()
        return ticket.granted

    def _take_back(self, ticket: Ticket) -> None:
        """Undo a grant to a call that was cancelled meanwhile; the guard is held."""

    def _status(self) -> dict[str, Any]:
        with self._guard:
            return {"waiting": [str(ticket.call.owner) for ticket in self._tickets]}

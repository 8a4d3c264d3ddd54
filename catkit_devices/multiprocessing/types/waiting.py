"""Waiting for something on a server, first come first served, until it comes or the waiter's process is gone."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from catkit_devices._base.timeouts import seconds
from catkit_devices.multiprocessing.hosted import HostedObject

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["Ticket", "Waiting"]


class Ticket:
    """One waiter: granted a value, or withdrawn because its call was cancelled.

    Args:
        call: whose it is.
        what: is waited for, shown in messages.
        timeout: seconds; None waits for as long as it takes.
        value: what it brings along.

    Raises:
        ValueError: ``timeout`` is no number.
    """

    __slots__ = ("_timeout", "_wake", "call", "granted", "value")

    def __init__(self, call: Call, what: str, timeout: float | None, value: Any = None) -> None:
        self.call = call
        self.granted = False
        self.value = value
        self._timeout = -1 if timeout is None else min(max(seconds(timeout, what), 0.0), threading.TIMEOUT_MAX)
        self._wake = threading.Lock()
        self._wake.acquire()

    def grant(self, value: Any = None) -> None:
        """Let it go on; the object's guard is held."""
        self.granted, self.value = True, value
        self._woken()

    def wait(self) -> None:
        """Wait for the grant, the timeout or the cancellation, whichever comes first."""
        self.call.on_cancel(self._woken)
        try:
            self._wake.acquire(timeout=self._timeout)
        finally:
            self.call.on_cancel(None)

    def _woken(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            return  # granted and cancelled at the same moment


class Waiting(HostedObject):
    """Waiters in the order in which they came."""

    _direct_ = False

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tickets: deque[Ticket] = deque()

    def _wait(self, ticket: Ticket) -> bool:
        """Return whether the ticket (queued under the guard) was granted in time.

        Raises:
            OperationCancelled: the waiting process has ended or interrupted the wait; nothing was granted. One that
                does so later has what was granted.
        """
        cancelled = True  # also where the wait itself is interrupted
        try:
            ticket.wait()
            cancelled = False
        finally:
            with self._guard:
                # Decided once, here: a grant must not be kept now and refused to the caller a moment later.
                cancelled = cancelled or ticket.call.reason is not None
                if not ticket.granted:
                    self._tickets.remove(ticket)
                elif cancelled:
                    self._take_back(ticket)
        if cancelled:
            ticket.call.check()
        return ticket.granted

    def _take_back(self, ticket: Ticket) -> None:
        """Undo a grant to a call that was cancelled meanwhile; the guard is held."""

    def _waiting_(self) -> list[str]:
        with self._guard:
            return [str(ticket.call.owner) for ticket in self._tickets]

    def _status_(self) -> dict[str, Any]:
        return {"waiting": self._waiting_()}

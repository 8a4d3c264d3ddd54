"""Waits on a server, in the order in which they began; they also end when the waiting process has ended."""

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
        call: the call that waits.
        what: the name of what it waits for, shown in messages.
        timeout: seconds; None waits without limit.
        value: what the call wants to put, in a wait for room.

    Raises:
        ValueError: ``timeout`` is not a number of seconds.
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
        """End its wait with a value; the caller holds the object's guard."""
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
    """An object at which calls wait, in the order in which they came."""

    _direct_ = False

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tickets: deque[Ticket] = deque()

    def _wait(self, ticket: Ticket) -> bool:
        """Return whether the ticket (queued under the guard) was granted in time.

        Raises:
            OperationCancelled: the waiting process has ended or has interrupted the wait; nothing was granted. If it
                does so later, it keeps what was granted.
        """
        cancelled = True  # also if the wait itself is interrupted
        try:
            ticket.wait()
            cancelled = False
        finally:
            with self._guard:
                # Decided once, here: otherwise a grant could be kept, and the caller be cancelled a moment later.
                cancelled = cancelled or ticket.call.reason is not None
                if not ticket.granted:
                    self._tickets.remove(ticket)
                elif cancelled:
                    self._take_back(ticket)
        if cancelled:
            ticket.call.check()
        return ticket.granted

    def _take_back(self, ticket: Ticket) -> None:
        """Undo a grant to a call that was cancelled meanwhile; the caller holds the guard."""

    def _waiting_(self) -> list[str]:
        with self._guard:
            return [str(ticket.call.owner) for ticket in self._tickets]

    def _status_(self) -> dict[str, Any]:
        return {"waiting": self._waiting_()}

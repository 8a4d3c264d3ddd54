"""Named condition variables."""

from __future__ import annotations

from catkit_devices.errors import MutexNotHeldError
from catkit_devices.multiprocessing.locks.lock import OwnedLock
from catkit_devices.multiprocessing.locks.mutex import DEFAULT_TIMEOUT, Mutex
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.types.waiting import Ticket, Waiting

__all__ = ["Condition"]


class Condition(Waiting):
    """As ``threading.Condition``, with its own mutex. A notification for a process that has died goes to the next one.

    ``wait_for`` calls its predicate in the process of the caller.
    """

    _section_ = True
    _mutex_: Mutex
    _handed_over_ = frozenset({"wait"})

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._lock = OwnedLock(name)
        self._mutex_ = Mutex.over(self._lock, DEFAULT_TIMEOUT)

    def wait(self, timeout: float | None = None) -> bool:
        """Release the mutex, wait at most ``timeout`` seconds for a notification, acquire the mutex again.

        Returns:
            Whether it was notified in time.

        Raises:
            MutexNotHeldError: the caller does not hold the mutex.
        """
        call = current_call()
        sections = self._lock.opened(call)
        if not sections:
            raise MutexNotHeldError(self._name)
        with self._guard:
            ticket = Ticket(call, f"condition {self._name!r}", timeout)
            self._tickets.append(ticket)
        for section in sections:
            self._lock.release(call, section)
        try:
            notified = self._wait(ticket)
        finally:
            if call.reason is None:
                try:
                    for section in sections:
                        self._lock.acquire(call, DEFAULT_TIMEOUT, section, f"{self._name}.wait")
                except BaseException:
                    with self._guard:
                        if ticket.granted:
                            self._take_back(ticket)
                    raise
        if call.reason is not None:  # cancelled: the caller may not have the mutex
            with self._guard:
                if ticket.granted:
                    self._take_back(ticket)
            call.check()
        return notified

    def notify(self, n: int = 1) -> None:
        """Wake the first ``n`` waiters; the caller holds the mutex."""
        if self._lock.sections(current_call()) == 0:
            raise MutexNotHeldError(self._name)
        with self._guard:
            for _ in range(min(n, len(self._tickets))):
                self._tickets.popleft().grant()

    def notify_all(self) -> None:
        """Wake every waiter; the caller holds the mutex."""
        self.notify(len(self._tickets))

    def _take_back(self, ticket: Ticket) -> None:  # noqa: ARG002 - a notification carries nothing
        if self._tickets:  # the notification goes to the next process that waits
            self._tickets.popleft().grant()

    def _returned_(self, notified: bool) -> None:
        with self._guard:
            if notified and self._tickets:
                self._tickets.popleft().grant()

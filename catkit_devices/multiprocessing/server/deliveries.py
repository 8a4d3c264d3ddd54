"""Values that were removed from a shared object and have not arrived at the client: if they never do, they go back."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.locks.owner import Call, Session

__all__ = ["Deliveries"]


_CONNECTIONS = 4
"""Number of ended connections whose last answer is remembered: the message that it never arrived may still come."""


class Deliveries:
    """The values that are on their way to the clients of one server, by the call whose answer they are.

    A client acknowledges such an answer on its lifeline as soon as it has read it. If the client dies before that, or
    interrupts the call, it has not got the value. If it is interrupted while it acknowledges, it abandons the call. So
    a value that has arrived is remembered until the client's thread makes its next call.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._under_way: dict[tuple[str, int], Callable[[], None]] = {}
        self._arrived: dict[tuple[str, int], Callable[[], None]] = {}
        self._ended: deque[tuple[Session, int]] = deque()

    def begin(self, call: Call, give_back: Callable[[], None]) -> None:
        """Record that a value is sent as the answer to ``call``."""
        session = call.session.carrier
        call.hands_over = True
        with self._guard:
            self._under_way[session.id, call.number] = give_back
        if call.session.ended or call.reason is not None:
            # The thread that ended it may have looked for values before this one was recorded.
            self.give_back(session, call.number)

    def arrived(self, session: Session, number: int) -> None:
        """Record that a value has arrived; until ``forget`` its client may still say that it has not."""
        with self._guard:
            give_back = self._under_way.pop((session.id, number), None)
            if give_back is not None:
                self._arrived[session.id, number] = give_back

    def give_back(self, session: Session, number: int) -> None:
        """Give back a value that will not arrive; does nothing for calls that returned no such value."""
        key = (session.id, number)
        with self._guard:
            give_back = self._under_way.pop(key, None) or self._arrived.pop(key, None)
        if give_back is not None:
            give_back()

    def forget(self, session: Session, number: int) -> None:
        """Record that the client keeps the value that has arrived with this call."""
        if self._arrived:
            with self._guard:
                self._arrived.pop((session.id, number), None)

    def connection_ended(self, session: Session, number: int) -> None:
        """Record that a connection has ended, whose last answer was this value."""
        if self._arrived:
            with self._guard:
                self._ended.append((session, number))
                old = self._ended.popleft() if len(self._ended) > _CONNECTIONS else None
            if old is not None:
                self.forget(*old)

    def end_session(self, session: Session) -> None:
        """Give back all values that are on their way to this session: they will not arrive any more."""
        with self._guard:
            numbers = [number for identity, number in self._under_way if identity == session.id]
            for key in [key for key in self._arrived if key[0] == session.id]:
                del self._arrived[key]
        for number in reversed(numbers):  # so that the value that was removed first is again the first
            self.give_back(session, number)

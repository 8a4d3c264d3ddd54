"""Values that have left a shared object and have not yet arrived at the client: given back when they never do."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.locks.owner import Call, Session

__all__ = ["Deliveries"]


_CONNECTIONS = 4
"""Connections that have ended whose last answer is remembered: the message that it never arrived may still come."""


class Deliveries:
    """What is on its way to the clients of one server, by the call that asked for it.

    A client acknowledges such an answer on its lifeline as soon as it has read it. One that dies, or interrupts the
    call, before that never had it. One that is interrupted in the middle of acknowledging gives the call up: so what
    has arrived is remembered until its thread asks for something else.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._under_way: dict[tuple[str, int], Callable[[], None]] = {}
        self._arrived: dict[tuple[str, int], Callable[[], None]] = {}
        self._ended: deque[tuple[Session, int]] = deque()

    def begin(self, call: Call, give_back: Callable[[], None]) -> None:
        """Note that a value leaves as the answer to ``call``."""
        session = call.session.carrier
        call.hands_over = True
        with self._guard:
            self._under_way[session.id, call.number] = give_back
        if call.session.ended or call.reason is not None:
            # Whoever ended it may have looked before the entry was there.
            self.give_back(session, call.number)

    def arrived(self, session: Session, number: int) -> None:
        """Note that a value has arrived; until ``forget`` its client may still say that it has not."""
        with self._guard:
            give_back = self._under_way.pop((session.id, number), None)
            if give_back is not None:
                self._arrived[session.id, number] = give_back

    def give_back(self, session: Session, number: int) -> None:
        """Give a value back that never arrives; harmless for calls that returned none."""
        key = (session.id, number)
        with self._guard:
            give_back = self._under_way.pop(key, None) or self._arrived.pop(key, None)
        if give_back is not None:
            give_back()

    def forget(self, session: Session, number: int) -> None:
        """Note that what has arrived with this call stays with the client."""
        if self._arrived:
            with self._guard:
                self._arrived.pop((session.id, number), None)

    def connection_ended(self, session: Session, number: int) -> None:
        """The thread that asked for this value last will ask for nothing more on its connection."""
        if self._arrived:
            with self._guard:
                self._ended.append((session, number))
                old = self._ended.popleft() if len(self._ended) > _CONNECTIONS else None
            if old is not None:
                self.forget(*old)

    def end_session(self, session: Session) -> None:
        """Give back all that is under way to this session: nothing of it arrives any more."""
        with self._guard:
            numbers = [number for identity, number in self._under_way if identity == session.id]
            for key in [key for key in self._arrived if key[0] == session.id]:
                del self._arrived[key]
        for number in reversed(numbers):  # so that the first to leave is the first again
            self.give_back(session, number)

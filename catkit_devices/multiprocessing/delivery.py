"""Values that have left a shared object and have not yet arrived at the client: given back when they never do."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.owner import Call, Session

__all__ = ["Deliveries"]


class Deliveries:
    """What is on its way to the clients of one server, by the call that asked for it.

    A client acknowledges such an answer on its lifeline as soon as it has read it. One that dies, or interrupts the
    call, before that never had it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._under_way: dict[tuple[str, int], Callable[[], None]] = {}

    def begin(self, call: Call, give_back: Callable[[], None]) -> None:
        """A value leaves as the answer to ``call``."""
        with self._guard:
            self._under_way[call.session.id, call.number] = give_back
        if call.session.ended or call.reason is not None:
            # Whoever ended it may have looked before the entry was there.
            self.settle(call.session, call.number, arrived=False)

    def settle(self, session: Session, number: int, *, arrived: bool) -> None:
        """A value has arrived, or never will; harmless for calls that returned none."""
        with self._guard:
            give_back = self._under_way.pop((session.id, number), None)
        if give_back is not None and not arrived:
            give_back()

    def end_session(self, session: Session) -> None:
        """Nothing that is under way to this session arrives any more."""
        with self._guard:
            numbers = [number for identity, number in self._under_way if identity == session.id]
        for number in reversed(numbers):  # so that the first to leave is the first again
            self.settle(session, number, arrived=False)

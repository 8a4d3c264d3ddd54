"""Named events and barriers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, OperationCancelled
from catkit_devices.multiprocessing.locks.mutex import DEFAULT_TIMEOUT
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.types.waiting import Ticket, Waiting

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.owner import Session

__all__ = ["Barrier", "Event"]


class Event(Waiting):
    """As ``threading.Event``. A wait may last for days; if the server ends, it ends with an error."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._flag = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._flag

    def set(self) -> None:
        """Set it; all waits end."""
        with self._guard:
            self._flag = True
            while True:
                if not self._tickets:
                    break
                self._tickets.popleft().grant()

    def clear(self) -> None:
        """Unset it."""
        with self._guard:
            self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` seconds; return whether it was."""
        with self._guard:
            if self._flag:
                return True
            ticket = Ticket(current_call(), f"event {self._name!r}", timeout)
            self._tickets.append(ticket)
        return self._wait(ticket)

    def _status_(self) -> dict[str, Any]:
        return {"set": self._flag, **super()._status_()}


class Barrier(Waiting):
    """As ``threading.Barrier``; in addition it breaks at once when one of its participants ends.

    The participants are the processes that have got it by name or have waited at it.
    """

    def __init__(self, name: str, parties: int | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        if not isinstance(parties, int) or parties < 1:
            raise ConfigurationError(f"barrier {name!r} needs a number of parties of at least 1, got {parties!r}")
        super().__init__()
        self._name = name
        self._parties = parties
        self._timeout = timeout
        self._participants: dict[str, str] = {}
        self._broken: str | None = None
        self._inside = 0

    @property
    def parties(self) -> int:
        """Number of participants for which it waits."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """Number of participants that wait now."""
        return len(self._tickets)

    @property
    def broken(self) -> bool:
        """Whether it is broken at the moment: until all that were waiting have left."""
        return self._broken is not None

    def join(self) -> None:
        """Make this process a participant: from now on its end breaks the barrier."""
        call = current_call()
        with self._guard:
            self._participants[call.session.id] = str(call.owner)

    def leave(self) -> None:
        """End the participation of this process."""
        with self._guard:
            self._participants.pop(current_call().session.id, None)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the other parties; return the order of arrival, from ``parties - 1`` down to 0 for the last.

        Raises:
            BrokenBarrierError: the time of a participant was over, a participant ended, or it was aborted; the message
                says which.
        """
        call = current_call()
        limit = self._timeout if timeout is None else timeout
        ticket = Ticket(call, f"barrier {self._name!r}", limit)
        with self._guard:
            call.check()
            self._participants[call.session.id] = str(call.owner)
            if self._broken is not None:
                raise threading.BrokenBarrierError(self._broken)
            position = self._parties - 1 - len(self._tickets)
            if position == 0:
                while True:
                    if not self._tickets:
                        return 0
                    self._tickets.popleft().grant(_PASSED)
            self._tickets.append(ticket)
            self._inside += 1
        try:
            try:
                if not self._wait(ticket):
                    raise threading.BrokenBarrierError(self._late(limit))
            except OperationCancelled:
                if not ticket.granted:
                    with self._guard:
                        self._break(f"barrier {self._name!r}: {call.owner} has stopped waiting")
                raise
        finally:
            with self._guard:
                self._inside -= 1
                if self._inside == 0:
                    self._broken = None
        if ticket.value is not _PASSED:
            raise threading.BrokenBarrierError(ticket.value)
        return position

    def _late(self, limit: float) -> str:
        with self._guard:
            missing = self._parties - 1 - len(self._tickets)
            why = f"barrier {self._name!r}: {missing} of {self._parties} parties had not come after {limit:g} s"
            self._break(why)
        return why

    def abort(self) -> None:
        """Break it for those that wait now."""
        with self._guard:
            self._break(f"barrier {self._name!r} was aborted by {current_call().owner}")

    def reset(self) -> None:
        """Break it for those that wait now; then it can be used again."""
        self.abort()

    def _break(self, why: str) -> None:
        """Break it for those that wait now; the caller holds the guard."""
        if self._inside:
            self._broken = why
        while self._tickets:
            self._tickets.popleft().grant(why)

    def _session_ended_(self, session: Session, goodbye: bool) -> None:
        with self._guard:
            participant = self._participants.pop(session.id, None)
            if participant is not None:
                self._break(f"barrier {self._name!r}: {participant} {'left' if goodbye else 'died'}")

    def _status_(self) -> dict[str, Any]:
        return {"parties": self._parties, "participants": list(self._participants.values()), **super()._status_()}


_PASSED = object()
"""Given to those who wait at a barrier when all have come; anything else is the reason why it is broken."""

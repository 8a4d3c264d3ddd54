"""Named events, barriers, conditions and queues, whose waiters are withdrawn when their process ends.

They live on a server. Each keeps its own queue of waiters, so a killed waiter swallows no item, satisfies no barrier
and consumes no notification.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, MutexNotHeldError, OperationCancelled
from catkit_devices.multiprocessing.locks import OwnedLock
from catkit_devices.multiprocessing.mutex import DEFAULT_TIMEOUT, Mutex
from catkit_devices.multiprocessing.owner import current_call
from catkit_devices.multiprocessing.shared import MutexedDict, MutexedNamespace
from catkit_devices.multiprocessing.streams import StreamMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.owner import Call, Session

__all__ = ["MAKERS", "Barrier", "Condition", "Event", "Queue"]


class _Ticket:
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


class _Waiting:
    """Waiters in the order in which they came."""

    _fixed = True

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tickets: deque[_Ticket] = deque()

    def _wait(self, ticket: _Ticket, timeout: float | None) -> bool:
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

    def _take_back(self, ticket: _Ticket) -> None:
        """Undo a grant to a call that was cancelled meanwhile; the guard is held."""

    def _status(self) -> dict[str, Any]:
        with self._guard:
            return {"waiting": [str(ticket.call.owner) for ticket in self._tickets]}


class Event(_Waiting):
    """As ``threading.Event``. A wait may last for days; it ends with an error when the server does."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._flag = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._flag

    def set(self) -> None:
        """Set it; everybody who waits goes on."""
        with self._guard:
            self._flag = True
            while self._tickets:
                self._tickets.popleft().grant()

    def clear(self) -> None:
        """Take it back."""
        with self._guard:
            self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` seconds; return whether it was."""
        with self._guard:
            if self._flag:
                return True
            ticket = _Ticket(current_call())
            self._tickets.append(ticket)
        return self._wait(ticket, timeout)

    def _status(self) -> dict[str, Any]:
        return {"set": self._flag, **super()._status()}


class Barrier(_Waiting):
    """As ``threading.Barrier``, and it breaks at once when one of its participants ends.

    The participants are the processes that asked for it by name or have waited at it.
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
        """How many it waits for."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait now."""
        return len(self._tickets)

    @property
    def broken(self) -> bool:
        """Whether it is broken just now: some of those who were waiting have not left yet."""
        return self._broken is not None

    def join(self) -> None:
        """Take part in it: the end of this process breaks it from now on."""
        call = current_call()
        with self._guard:
            self._participants[call.session.id] = str(call.owner)

    def leave(self) -> None:
        """Take part in it no more."""
        with self._guard:
            self._participants.pop(current_call().session.id, None)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the other parties; return the order of arrival, from ``parties - 1`` down to 0 for the last.

        Raises:
            BrokenBarrierError: somebody's time was over, a participant ended, or it was aborted; says which.
        """
        call = current_call()
        ticket = _Ticket(call)
        with self._guard:
            call.check()
            self._participants[call.session.id] = str(call.owner)
            if self._broken is not None:
                raise threading.BrokenBarrierError(self._broken)
            position = self._parties - 1 - len(self._tickets)
            if position == 0:
                while self._tickets:
                    self._tickets.popleft().grant(_PASSED)
                return 0
            self._tickets.append(ticket)
            self._inside += 1
        limit = self._timeout if timeout is None else timeout
        try:
            try:
                if not self._wait(ticket, limit):
                    raise threading.BrokenBarrierError(self._late(limit))
            except OperationCancelled:
                if not ticket.granted:
                    with self._guard:
                        self._break(f"barrier {self._name!r}: {call.owner} gave up waiting")
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
        """Break it for those who wait now."""
        with self._guard:
            self._break(f"barrier {self._name!r} was aborted by {current_call().owner}")

    def reset(self) -> None:
        """Break it for those who wait now; it is as new afterwards."""
        self.abort()

    def _break(self, why: str) -> None:
        """Break it for those who wait now; the guard is held."""
        if self._inside:
            self._broken = why
        while self._tickets:
            self._tickets.popleft().grant(why)

    def _session_ended(self, session: Session, goodbye: bool) -> None:
        with self._guard:
            participant = self._participants.pop(session.id, None)
            if participant is not None:
                self._break(f"barrier {self._name!r}: {participant} {'left' if goodbye else 'died'}")

    def _status(self) -> dict[str, Any]:
        return {"parties": self._parties, "participants": list(self._participants.values()), **super()._status()}


_PASSED = object()


class Condition(_Waiting):
    """As ``threading.Condition``, over a mutex of its own. A notification that finds a dead process goes to the next.

    ``wait_for`` asks its predicate in the process of the caller.
    """

    _section = True
    _handed_over = frozenset({"wait"})
    """The methods whose result is given back by ``_returned`` when it does not reach the client."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._lock = OwnedLock(name)
        self.mutex = Mutex._over(self._lock, DEFAULT_TIMEOUT)

    def wait(self, timeout: float | None = None) -> bool:
        """Give the mutex back, wait to be notified at most ``timeout`` seconds, take the mutex again.

        Returns:
            Whether it was notified in time.

        Raises:
            MutexNotHeldError: the caller does not hold the mutex.
        """
        call = current_call()
        depth = self._lock.sections(call)
        if depth == 0:
            raise MutexNotHeldError(self._name)
        with self._guard:
            ticket = _Ticket(call)
            self._tickets.append(ticket)
        self._lock.release(call, 0)
        try:
            notified = self._wait(ticket, timeout)
        finally:
            if call.reason is None:
                try:
                    self._lock.acquire(call, DEFAULT_TIMEOUT, depth=depth, site=f"{self._name}.wait")
                except BaseException:
                    with self._guard:
                        if ticket.granted:
                            self._take_back(ticket)
                    raise
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

    def _take_back(self, ticket: _Ticket) -> None:  # noqa: ARG002 - a notification carries nothing
        if self._tickets:  # the notification was meant for somebody who lives
            self._tickets.popleft().grant()

    def _returned(self, notified: bool) -> None:
        with self._guard:
            if notified and self._tickets:
                self._tickets.popleft().grant()

    def _session_ended(self, session: Session, goodbye: bool) -> None:  # noqa: ARG002
        self._lock.end_session(session)


class Queue(_Waiting):
    """As ``queue.Queue``, without ``join``. An item on its way to a process that dies goes to the next one.

    A ``put`` that waits for room has happened when there is room; one whose process ends before that has not.
    """

    _handed_over = frozenset({"get", "get_nowait"})
    """The methods whose result is given back by ``_returned`` when it does not reach the client."""

    def __init__(self, name: str, maxsize: int = 0) -> None:
        super().__init__()
        self._name = name
        self._maxsize = maxsize
        self._items: deque[Any] = deque()
        self._putting: deque[_Ticket] = deque()

    @property
    def maxsize(self) -> int:
        """How many items it has room for; 0 for any number."""
        return self._maxsize

    def qsize(self) -> int:
        """How many items it has."""
        return len(self._items)

    def empty(self) -> bool:
        """Whether it has none."""
        return not self._items

    def full(self) -> bool:
        """Whether it has ``maxsize`` of them."""
        return 0 < self._maxsize <= len(self._items)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append an item, waiting for room at most ``timeout`` seconds (None: for as long as it takes).

        Raises:
            queue.Full: there was no room.
        """
        call = current_call()
        with self._guard:
            call.check()
            if not self.full():
                self._deliver(item)
                return
            if not block:
                raise queue.Full
            ticket = _Ticket(call, item)
            self._putting.append(ticket)
        ticket.wait(timeout)
        with self._guard:
            if not ticket.granted:
                self._putting.remove(ticket)
                call.check()
                raise queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item, waiting for one at most ``timeout`` seconds (None: for as long as it takes).

        Raises:
            queue.Empty: there was none.
        """
        call = current_call()
        with self._guard:
            call.check()
            if self._items:
                item = self._items.popleft()
                self._made_room()
                return item
            if not block:
                raise queue.Empty
            ticket = _Ticket(call)
            self._tickets.append(ticket)
        if not self._wait(ticket, timeout):
            raise queue.Empty
        return ticket.value

    def put_nowait(self, item: Any) -> None:
        """Append an item or raise ``queue.Full``."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take the first item or raise ``queue.Empty``."""
        return self.get(block=False)

    def _deliver(self, item: Any) -> None:
        if self._tickets:
            self._tickets.popleft().grant(item)
        else:
            self._items.append(item)

    def _made_room(self) -> None:
        if self._putting and not self.full():
            ticket = self._putting.popleft()
            self._deliver(ticket.value)
            ticket.grant()

    def _take_back(self, ticket: _Ticket) -> None:
        self._return(ticket.value)

    def _return(self, item: Any) -> None:
        """Put an item back where it was; the guard is held."""
        if self._tickets:
            self._tickets.popleft().grant(item)
        else:
            self._items.appendleft(item)

    def _returned(self, item: Any) -> None:
        with self._guard:
            self._return(item)

    def _status(self) -> dict[str, Any]:
        return {"items": len(self._items), "putting": len(self._putting), **super()._status()}


MAKERS: dict[str, Callable[..., Any]] = {
    "event": Event,
    "barrier": Barrier,
    "condition": Condition,
    "queue": Queue,
    "dict": lambda name, **options: MutexedDict(name=name, **options),
    "namespace": MutexedNamespace,
    "stream": StreamMemory,
}
"""How each kind of named object is made."""

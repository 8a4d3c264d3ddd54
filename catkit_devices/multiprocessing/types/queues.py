"""Named queues."""

from __future__ import annotations

import queue
from collections import deque
from typing import Any

from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.types.waiting import Ticket, Waiting

__all__ = ["Queue"]


class Queue(Waiting):
    """As ``queue.Queue``, without ``join``. An item that is being sent to a process which dies goes to the next one.

    A ``put`` that waits for room takes effect when there is room; if its process ends before that, nothing is put.
    """

    _handed_over_ = frozenset({"get", "get_nowait"})

    def __init__(self, name: str, maxsize: int = 0) -> None:
        super().__init__()
        self._name = name
        self._maxsize = maxsize
        self._items: deque[Any] = deque()
        self._putting: deque[Ticket] = deque()

    @property
    def maxsize(self) -> int:
        """Number of items for which it has room; 0 for any number."""
        return self._maxsize

    def qsize(self) -> int:
        """Number of items in it."""
        return len(self._items)

    def empty(self) -> bool:
        """Whether it has no item."""
        return not self._items

    def full(self) -> bool:
        """Whether it has ``maxsize`` items."""
        return 0 < self._maxsize <= len(self._items)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append an item, waiting for room at most ``timeout`` seconds (None: without limit).

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
            ticket = Ticket(call, f"queue {self._name!r}", timeout, item)
            self._putting.append(ticket)
        ticket.wait()
        with self._guard:
            if not ticket.granted:
                self._putting.remove(ticket)
                call.check()
                raise queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the first item, waiting for one at most ``timeout`` seconds (None: without limit).

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
            ticket = Ticket(call, f"queue {self._name!r}", timeout)
            self._tickets.append(ticket)
        if not self._wait(ticket):
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

    def _take_back(self, ticket: Ticket) -> None:
        self._return(ticket.value)

    def _return(self, item: Any) -> None:
        """Put an item back as the first one; the caller holds the guard."""
        if self._tickets:
            self._tickets.popleft().grant(item)
        else:
            self._items.appendleft(item)

    def _returned_(self, item: Any) -> None:
        with self._guard:
            self._return(item)

    def _status_(self) -> dict[str, Any]:
        return {"items": len(self._items), "putting": len(self._putting), **super()._status_()}

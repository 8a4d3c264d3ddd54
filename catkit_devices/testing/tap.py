"""Records what is written to a simulated instrument: which thread writes what, and in which order."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation.faults import FaultyLine, Piece, Talk
    from catkit_devices.simulation.resource import Receiver, SimulatedResource

__all__ = ["Tap", "Written"]


class Written(NamedTuple):
    """One write: by which thread, and what."""

    thread: int
    data: bytes


class Tap:
    """Records every write to an instrument, from any thread.

    Args:
        resource: the instrument at its address.
    """

    def __init__(self, resource: SimulatedResource) -> None:
        self.line: FaultyLine = resource.line
        self.written: list[Written] = []
        self.on_write: Callable[[], None] | None = None
        """Called in the writing thread, after each write."""
        self.opened = 0
        """How many sessions were opened so far."""
        self._exchange, self._attach = self.line.exchange, resource.attach
        self.line.exchange = self._noted  # type: ignore[method-assign]  # the tap is put in between
        resource.attach = self._attached  # type: ignore[method-assign]  # as above

    def __len__(self) -> int:
        return len(self.written)

    def by(self, thread: int, since: int = 0) -> list[int]:
        """Return the positions of the writes of one thread, from the position ``since`` on."""
        return [position for position, one in enumerate(self.written) if position >= since and one.thread == thread]

    def _attached(self, **options: Any) -> Receiver:
        self.opened += 1
        return self._attach(**options)

    def _noted(self, data: bytes, talk: Talk | None = None) -> list[Piece]:
        if data:
            self.written.append(Written(threading.get_ident(), data))
        pieces = self._exchange(data, talk)
        if data and self.on_write is not None:
            self.on_write()
        return pieces

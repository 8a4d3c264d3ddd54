"""Looking at a simulated wire from beside it: who writes what, and in which order."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation import Fault
    from catkit_devices.simulation.faults import Line, Piece
    from catkit_devices.simulation.wire import Wire

__all__ = ["Tap", "Written"]


class Written(NamedTuple):
    """One write: by which thread, and what."""

    thread: int
    data: bytes


class Tap:
    """Notes every write to an instrument, from any thread.

    Args:
        wire: to the instrument; the tap takes the place of its line.
    """

    def __init__(self, wire: Wire) -> None:
        self._line: Line = wire.line
        self.written: list[Written] = []
        self.on_write: Callable[[], None] | None = None
        """Called in the writing thread, after each write."""
        self._lock = threading.Lock()
        wire.line = self  # type: ignore[assignment]  # it has the methods that the wire uses

    def __len__(self) -> int:
        return len(self.written)

    def by(self, thread: int, since: int = 0) -> list[int]:
        """Return the positions, from ``since`` on, of what a thread has written."""
        return [position for position, one in enumerate(self.written) if position >= since and one.thread == thread]

    # --- what a line does

    @property
    def history(self) -> list[tuple[int, str]]:
        """The faults that have struck."""
        return self._line.history

    def exchange(self, data: bytes) -> list[Piece]:
        """Note what is written, and pass it on."""
        if data:
            with self._lock:
                self.written.append(Written(threading.get_ident(), data))
        pieces = self._line.exchange(data)
        if data and self.on_write is not None:
            self.on_write()
        return pieces

    def inject(self, fault: Fault, count: int = 1, *, after: int = 0) -> None:
        """Strike the next ``count`` replies, once ``after`` have come unharmed."""
        self._line.inject(fault, count, after=after)

    def clear(self) -> None:
        """Forget the faults that have not struck yet."""
        self._line.clear()

"""What a simulated instrument is, and the queue that those need whose answers take time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from catkit_devices.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices._base.clock import Clock

__all__ = ["GIVEN_BY_THE_SIMULATION", "SIMULATOR_FILES", "LineDroppedError", "Outbox", "Simulator"]

GIVEN_BY_THE_SIMULATION = frozenset({"bench", "clock", "seed"})
"""Arguments of the constructors of benches and simulators that are no options: the simulation gives them."""

SIMULATOR_FILES = (".yaml", ".yml", ".wire")
"""How the files of simulated instruments end; a simulator of any other name is a plugin's."""


@runtime_checkable
class Simulator(Protocol):
    """A simulated instrument: a class that is constructed as ``cls(bench, **options)`` and has one method.

    It may also have any of these, which only matter where the interface has them (USB, GPIB, TCPIP INSTR):

    * ``message_end: bytes``: what the end of a message stands for. There the end of a write is part of the message,
      so a program may leave the terminator out; the backend then adds these bytes.
    * ``clear() -> None``: forget a half-received message and unread replies (device clear).
    * ``read_stb() -> int``: the status byte. Without it, bit 4 (message available) tells whether there is a reply.
    * ``trigger() -> bytes``: what a trigger does, and the bytes that it makes the instrument send.
    """

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire and return the bytes that are due on it by now.

        Called with what was written, in pieces as they were written, and with ``b""`` to ask for what became due as
        time passed (by ``bench.clock.time()``, never by waiting). Each result that is not empty is one message where
        the interface marks the ends of messages.

        Raises:
            LineDroppedError: to drop the connection.
        """
        ...


class LineDroppedError(SimulationError, ConnectionError):
    """Raised from :meth:`Simulator.feed` to drop the connection, as if a cable had been pulled.

    Attributes:
        passing: whether the instrument can be opened again at once; else when ``reconnect()`` is called.
    """

    passing: bool = False


class Outbox:
    """What an instrument is going to send, each piece at its time and in the order in which it was put.

    Args:
        clock: the bench's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pieces: deque[tuple[float, bytes | Callable[[], bytes]]] = deque()

    def put(self, data: bytes | Callable[[], bytes], delay: float = 0.0, *, at: float | None = None) -> None:
        """Send ``data`` after ``delay`` seconds, or at the time ``at``; never before what was put earlier.

        Args:
            data: bytes, or a function that makes them when they are due.
            delay: seconds from now.
            at: a reading of the clock, instead of ``delay``.
        """
        self._pieces.append((self._clock.time() + delay if at is None else at, data))

    def take(self) -> bytes:
        """Remove and return what is due by now."""
        return b"".join(self.take_pieces())

    def take_pieces(self) -> list[bytes]:
        """Remove and return what is due by now, in the pieces in which it was put."""
        now = self._clock.time()
        due: list[bytes] = []
        while self._pieces and self._pieces[0][0] <= now:
            data = self._pieces.popleft()[1]
            due.append(data if isinstance(data, bytes) else data())
        return due

    def take_one(self) -> bytes:
        """Remove and return the next piece if it is due by now, else b""."""
        if not self._pieces or self._pieces[0][0] > self._clock.time():
            return b""
        data = self._pieces.popleft()[1]
        return data if isinstance(data, bytes) else data()

    def drop_one(self) -> None:
        """Forget the next piece, due or not."""
        self._pieces.popleft()

    def clear(self) -> None:
        """Forget everything that was not taken yet."""
        self._pieces.clear()

    def __bool__(self) -> bool:
        return bool(self._pieces)

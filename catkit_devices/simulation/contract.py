"""What a simulated instrument must be, and a queue for instruments whose answers take time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from catkit_devices.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices._base.clock import Clock

__all__ = ["GIVEN_BY_THE_SIMULATION", "SIMULATOR_FILES", "LineDroppedError", "Outbox", "Simulator"]

GIVEN_BY_THE_SIMULATION = frozenset({"bench", "clock", "device_options", "seed"})
"""Arguments of the constructors of benches and simulators that are not options: the simulation passes them."""

SIMULATOR_FILES = (".yaml", ".yml", ".wire")
"""The endings of files that describe a simulated instrument; any other name of a simulator is that of a plugin."""


@runtime_checkable
class Simulator(Protocol):
    """A simulated instrument: a class that is constructed as ``cls(bench, **options)`` and has one method.

    If its constructor has an argument ``device_options``, it is given a list with the options of each device at its
    address.

    An instrument that answers each of several connections over TCP by itself has a method ``connect()`` in addition. It
    is called for every new connection, and returns an object with a ``feed`` of its own.

    It may also have any of the following, which are used only where the interface has them (USB, GPIB, TCPIP INSTR):

    * ``message_end: bytes``: the terminator of messages. On these interfaces the end of a write marks the end of the
      message, so a program may leave the terminator out; the simulation then adds these bytes.
    * ``clear() -> None``: forget a half-received message and unread replies (device clear).
    * ``read_stb() -> int``: the status byte. Without it, bit 4 (message available) tells whether there is a reply.
    * ``trigger() -> bytes``: what a trigger does, and the bytes that it makes the instrument send.
    """

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the wire, and return the bytes that the instrument has sent by now.

        It is called with each piece that was written, and with ``b""`` to ask what the instrument sends as time passes.
        The time is ``bench.clock.time()``; this method never waits. On an interface that marks the ends of messages,
        each result that is not empty is one message.

        Raises:
            LineDroppedError: to drop the connection.
        """
        ...


class LineDroppedError(SimulationError, ConnectionError):
    """Raised from :meth:`Simulator.feed` to drop the connection, as if a cable had been pulled.

    Attributes:
        passing: whether the instrument can be opened again at once; if not, only after ``reconnect()``.
    """

    passing: bool = False


class Outbox:
    """What an instrument is going to send: each piece at its time, in the order in which the pieces were put.

    Args:
        clock: the bench's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pieces: deque[tuple[float, bytes | Callable[[], bytes]]] = deque()

    def put(self, data: bytes | Callable[[], bytes], delay: float = 0.0, *, at: float | None = None) -> None:
        """Send ``data`` after ``delay`` seconds, or at the time ``at``, but not before what was put earlier.

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

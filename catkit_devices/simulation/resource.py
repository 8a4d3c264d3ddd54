"""One simulated instrument at its address, and what has arrived from it for each session that is open on it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from pyvisa import rname
from pyvisa.constants import InterfaceType

from catkit_devices._wire.address import normalise
from catkit_devices.errors import ConfigurationError, SimulationError
from catkit_devices.simulation.contract import LineDroppedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation.bench import Bench
    from catkit_devices.simulation.contract import Simulator
    from catkit_devices.simulation.faults import FaultyLine, Piece, Talk

__all__ = ["STREAMS", "Receiver", "SimulatedResource", "parse_address"]

#: Kinds of address that carry plain bytes, and those that also mark where a message ends.
STREAMS = {(InterfaceType.asrl, "INSTR"), (InterfaceType.tcpip, "SOCKET")}
_MESSAGES = {
    (InterfaceType.gpib, "INSTR"),
    (InterfaceType.tcpip, "INSTR"),
    (InterfaceType.usb, "INSTR"),
    (InterfaceType.usb, "RAW"),
    (InterfaceType.vicp, "INSTR"),
}
"""Kinds of address that mark where a message ends."""


def parse_address(address: str) -> rname.ResourceName:
    """Return the parsed address, in the one spelling that VISA prescribes.

    Raises:
        ConfigurationError: it is not a VISA address, or one of an interface that carries no messages.
    """
    try:
        parsed = rname.ResourceName.from_string(normalise(address))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if (parsed.interface_type_const, parsed.resource_class) not in STREAMS | _MESSAGES:
        raise ConfigurationError(f"{address!r} cannot be simulated: its interface carries no messages")
    return parsed


class Receiver:
    """What has arrived for one session and was not read yet.

    Args:
        connection: whether the session is a connection (TCP): when it is closed, replies that come later are lost.
        talk: of a connection that the instrument answers by itself; None if all sessions share the instrument.
    """

    def __init__(self, *, connection: bool, talk: Talk | None = None) -> None:
        self.connection = connection
        self.talk = talk
        self._data = bytearray()
        self._ends: deque[int] = deque()  # for each message, the index after its last byte

    def __len__(self) -> int:
        return len(self._data)

    def put(self, data: bytes, *, end: bool) -> None:
        """Add what arrived, and whether a message ends with it."""
        self._data += data
        if end and data:
            self._ends.append(len(self._data))

    def take(self, count: int) -> bytes:
        """Remove and return the first ``count`` bytes."""
        taken = bytes(self._data[:count])
        del self._data[:count]
        self._ends = deque(end - count for end in self._ends if end > count)
        return taken

    def clear(self) -> None:
        """Discard everything."""
        self.take(len(self._data))

    def discard(self, byte: int) -> None:
        """Remove every ``byte`` (on serial lines, which mark no ends)."""
        self._data = self._data.replace(bytes([byte]), b"")

    def end(self) -> int | None:
        """Return the length of the first message in bytes; None while its end has not arrived."""
        return self._ends[0] if self._ends else None

    def find(self, byte: int) -> int | None:
        """Return the number of bytes up to and including ``byte``; None if it has not arrived."""
        found = self._data.find(byte)
        return None if found < 0 else found + 1

    def find_bit(self, mask: int) -> int | None:
        """Return the number of bytes up to and including the first one that has the bits of ``mask`` set."""
        return next((index + 1 for index, byte in enumerate(self._data) if byte & mask), None)


class _Blame:
    """Turns every error inside of it into one that says that the simulated instrument has failed.

    Otherwise a driver would take a ValueError for its own error about a senseless reply, and an OSError for a lost
    connection. It is a class because every look whether data has come enters it, and one made from a generator is slow.
    """

    def __init__(self, address: str, instrument: str) -> None:
        self._what = f"the simulated instrument at {address} ({instrument}) failed"

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, SimulationError):  # such a one says so already
            raise SimulationError(f"{self._what}: {type(error).__name__}: {error}") from error


class SimulatedResource:
    """One instrument at one address. The caller of a method must hold :attr:`lock`, the lock of the whole bench.

    A reply goes to the session that wrote last, even if it comes late. If that session is closed, a reply over TCP is
    lost with its connection; on every other interface it goes to the session that reads next. What several sessions
    write reaches the instrument in the order in which they wrote it. An instrument with a method ``connect`` answers
    each connection over TCP by itself.

    Args:
        parsed: the address.
        instrument: the simulated instrument.
        line: the line to it, which may have faults.
        bench: the bench to which it belongs.
    """

    def __init__(self, parsed: rname.ResourceName, instrument: Simulator, line: FaultyLine, bench: Bench) -> None:
        self.parsed = parsed
        self.address = str(parsed)
        self.instrument = instrument
        self.line = line
        self.clock = bench.clock
        self.lock = bench.lock
        self.kind = (parsed.interface_type_const, parsed.resource_class)
        self.has_end = self.kind in _MESSAGES
        self.connected = True
        self.generation = 0
        self._blame = _Blame(self.address, type(instrument).__qualname__)
        self._writer: Receiver | None = None
        self._open: list[Receiver] = []

    def attach(self, *, connection: bool | None = None) -> Receiver:
        """Open one more session on the instrument.

        Args:
            connection: whether late replies are lost when it is closed; by default, only with an address over TCP.
        """
        own = self.kind[0] is InterfaceType.tcpip if connection is None else connection
        connect: Callable[[], Simulator] | None = getattr(self.instrument, "connect", None)
        talk = None
        if connect is not None and own and not self.has_end:
            with self._blame:
                talk = self.line.connection(connect())
        receiver = Receiver(connection=own, talk=talk)
        self._open.append(receiver)
        return receiver

    def detach(self, receiver: Receiver) -> None:
        """Close a session."""
        self._open = [other for other in self._open if other is not receiver]

    def write(self, data: bytes, writer: Receiver, *, end: bool) -> None:
        """Send ``data``; ``end`` says that a message ends with it, where the interface can tell."""
        if end and self.has_end:
            message_end: bytes = getattr(self.instrument, "message_end", b"")
            if not data.endswith(message_end):
                data += message_end
        if self._writer is not writer:
            self.poll(writer)  # replies that have come by now belong to the session that wrote before
            if self._writer is not None and self._writer.connection and not self._is_open(self._writer):
                self.line.lose()  # what was still to come over a connection does not come over the next one
        self._writer = writer
        if data:
            self._exchange(data, writer)

    def poll(self, reader: Receiver) -> None:
        """Fetch what the instrument has sent by now; ``reader`` is the session that asks."""
        self._exchange(b"", reader)

    def trigger(self, writer: Receiver) -> bool:
        """Trigger the instrument; False if it has no trigger."""
        trigger: Any = getattr(self.instrument, "trigger", None)
        if trigger is None:
            return False
        self._writer = writer
        with self._blame:
            writer.put(trigger(), end=self.has_end)
        return True

    def clear(self, reader: Receiver) -> None:
        """Discard what arrived and, where the interface has a device clear, tell the instrument."""
        self.poll(reader)
        for receiver in self._open if self.has_end else [reader]:
            receiver.clear()
        if not self.has_end:
            return
        self.line.abort()
        clear: Any = getattr(self.instrument, "clear", None)
        if clear is not None:
            with self._blame:
                clear()

    def status_byte(self, reader: Receiver) -> int:
        """Return the instrument's status byte."""
        self.poll(reader)
        read_stb: Any = getattr(self.instrument, "read_stb", None)
        if read_stb is None:
            return 16 * bool(len(reader))
        with self._blame:
            return int(read_stb())

    def drop(self) -> None:
        """Drop the connection: every open session is lost; others can be opened at once."""
        self.generation += 1

    def disconnect(self) -> None:
        """Drop the connection: every open session is lost, and none can be opened until :meth:`reconnect`."""
        self.connected = False
        self.drop()

    def reconnect(self) -> None:
        """Let sessions be opened again; those that were lost stay lost."""
        self.connected = True

    def _exchange(self, data: bytes, session: Receiver) -> None:
        try:
            with self._blame:
                pieces: list[Piece] = self.line.exchange(data, session.talk)
        except LineDroppedError as error:
            self.drop() if error.passing else self.disconnect()
            return
        for piece in pieces:
            receiver = self._receiver(session)
            if receiver is not None:
                receiver.put(piece.data, end=piece.end and self.has_end)

    def _is_open(self, receiver: Receiver) -> bool:
        return any(one is receiver for one in self._open)

    def _receiver(self, session: Receiver) -> Receiver | None:
        if self._writer is None or session.talk is not None:
            return session
        if self._is_open(self._writer):
            return self._writer
        return None if self._writer.connection else session

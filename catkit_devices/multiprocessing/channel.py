"""One message at a time over a stream socket: a pickle behind its length, large arrays beside it.

The peers take turns (a call, its answer), so one message is all that a socket ever holds.
"""

from __future__ import annotations

import pickle
import socket
import struct
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import finalize

from catkit_devices.multiprocessing import segments
from catkit_devices.multiprocessing.segments import Parcel

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

__all__ = ["Channel", "Message", "dumps", "take_over"]

_HEADER = struct.Struct("<Q")
_COUNT = 48
_LENGTH = (1 << _COUNT) - 1
_PARCEL = struct.Struct("<IQQ?I")
_BUFFER = 1 << 16
_ANCILLARY = socket.CMSG_SPACE(64 * 4) if hasattr(socket, "CMSG_SPACE") else 0


def dumps(value: Any, buffers: Callable[[pickle.PickleBuffer], object] | None = None) -> bytes:
    """Return ``value`` pickled; what is defined in ``__main__``, or cannot go by reference, goes by value.

    ``buffers`` is asked for each large buffer whether it stays in the pickle (true) or travels on its own (false).
    """
    try:
        data = pickle.dumps(value, 5, buffer_callback=buffers)
    except Exception:  # noqa: BLE001 - a class may refuse in any way; cloudpickle has the last word
        data = None
    if data is None or b"__main__" in data:
        import cloudpickle

        by_value: bytes = cloudpickle.dumps(value, 5, buffer_callback=buffers)
        return by_value
    return data


def take_over(connection: Connection) -> socket.socket:
    """Return the socket under an authenticated connection, which is no longer usable afterwards."""
    sock = socket.socket(fileno=connection.fileno())
    connection._handle = None  # type: ignore[attr-defined]
    if sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Message(NamedTuple):
    """A value on its way: its pickle, and the parcels that hold its large buffers."""

    data: bytes
    parcels: list[tuple[Parcel, Any]]


class Channel:
    """The two ends of it behave alike. Not for several threads at once."""

    __slots__ = ("__weakref__", "_buffer", "_incoming", "_local", "_outgoing", "_view", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        finalize(self, sock.close)  # a thread that ends leaves its line behind
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._local = segments.available and sock.family == socket.AF_UNIX
        self._incoming = segments.Incoming()
        self._outgoing = segments.Outgoing()

    def pack(self, value: Any) -> Message:
        """Pickle a value, putting its large buffers (arrays) into shared memory where both ends are on one host."""
        parcels: list[tuple[Parcel, Any]] = []

        def place(buffer: pickle.PickleBuffer) -> bool:
            if buffer.raw().nbytes < segments.THRESHOLD:
                return True
            try:
                parcels.append(self._outgoing.put(buffer))
            except OSError:  # no shared memory left: the socket takes it, more slowly
                return True
            return False

        data = dumps(value, place if self._local else None)
        return Message(data, parcels)

    def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            OSError: the connection is gone.
        """
        data, parcels = message
        if parcels:
            data = b"".join(_PARCEL.pack(*parcel) for parcel, _ in parcels) + data
            head = _HEADER.pack(len(data) | len(parcels) << _COUNT)
            fresh = [segment.descriptor for parcel, segment in parcels if parcel.fresh]
            socket.send_fds(self.socket, [head], fresh)
            self.socket.sendall(data)
        elif len(data) < _BUFFER:
            self.socket.sendall(_HEADER.pack(len(data)) + data)
        else:
            self.socket.sendall(_HEADER.pack(len(data)))
            self.socket.sendall(data)

    def receive(self) -> tuple[memoryview, list[Any]]:
        """Return the next message, unread, for ``unpack``; it is valid until the next one is asked for.

        Raises:
            EOFError: the other end is gone.
            OSError: the connection is gone.
        """
        descriptors: list[int] = []
        got = 0
        while got < _HEADER.size:
            got += self._read(self._view[got:], descriptors)
        (length,) = _HEADER.unpack_from(self._buffer)
        count, length = length >> _COUNT, length & _LENGTH
        end = length + _HEADER.size
        if end <= _BUFFER:
            while got < end:
                got += self._read(self._view[got:], descriptors)
            body = self._view[_HEADER.size : end]
        else:
            whole = bytearray(length)
            body = memoryview(whole)
            body[: got - _HEADER.size] = self._view[_HEADER.size : got]
            got -= _HEADER.size
            while got < length:
                got += self._read(body[got:], descriptors)
        buffers: list[Any] = []
        for number in range(count):
            parcel = Parcel(*_PARCEL.unpack_from(body, number * _PARCEL.size))
            buffers.append(self._incoming.take(parcel, descriptors.pop(0) if parcel.fresh else None))
        return body[count * _PARCEL.size :], buffers

    @staticmethod
    def unpack(received: tuple[memoryview, list[Any]]) -> Any:
        """Return the value of a message; raises whatever its classes raise on loading."""
        return pickle.loads(received[0], buffers=received[1])

    def _read(self, view: memoryview, descriptors: list[int]) -> int:
        if not self._local:
            got = self.socket.recv_into(view)
        else:
            got, ancillary, _, _ = self.socket.recvmsg_into([view], _ANCILLARY)
            if ancillary:
                received = array("i")
                for level, kind, data in ancillary:
                    if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                        received.frombytes(data[: len(data) - len(data) % received.itemsize])
                descriptors.extend(received)
        if got == 0:
            raise EOFError
        return got

    def close(self) -> None:
        """Close the socket; harmless when done already."""
        self.socket.close()

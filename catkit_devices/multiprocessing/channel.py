"""One message at a time over a stream socket: pickled objects behind a length.

The peers take turns (a call, its answer), so one message is all that a socket ever holds.
"""

from __future__ import annotations

import pickle
import socket
import struct
from typing import TYPE_CHECKING, Any
from weakref import finalize

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Channel", "dumps", "take_over"]

_HEADER = struct.Struct("<Q")
_BUFFER = 1 << 16


def dumps(value: Any) -> bytes:
    """Return ``value`` pickled; what is defined in ``__main__``, or cannot go by reference, goes by value."""
    try:
        data = pickle.dumps(value, 5)
    except Exception:  # noqa: BLE001 - a class may refuse in any way; cloudpickle has the last word
        data = None
    if data is None or b"__main__" in data:
        import cloudpickle

        by_value: bytes = cloudpickle.dumps(value, 5)
        return by_value
    return data


def take_over(connection: Connection) -> socket.socket:
    """Return the socket under an authenticated connection, which is no longer usable afterwards."""
    sock = socket.socket(fileno=connection.fileno())
    connection._handle = None  # type: ignore[attr-defined]
    if sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Channel:
    """The two ends of it behave alike. Not for several threads at once."""

    __slots__ = ("__weakref__", "_buffer", "_view", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        finalize(self, sock.close)  # a thread that ends leaves its line behind
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)

    def send(self, data: bytes) -> None:
        """Send one message.

        Raises:
            OSError: the connection is gone.
        """
        if len(data) < _BUFFER:
            self.socket.sendall(_HEADER.pack(len(data)) + data)
        else:
            self.socket.sendall(_HEADER.pack(len(data)))
            self.socket.sendall(data)

    def receive(self) -> memoryview | bytearray:
        """Return the next message; valid until the next call.

        Raises:
            EOFError: the other end is gone.
            OSError: the connection is gone.
        """
        receive_into = self.socket.recv_into
        got = receive_into(self._buffer)
        while got < 8:
            if got == 0:
                raise EOFError
            more = receive_into(self._view[got:])
            if more == 0:
                raise EOFError
            got += more
        (length,) = _HEADER.unpack_from(self._buffer)
        end = length + 8
        if end <= _BUFFER:
            while got < end:
                more = receive_into(self._view[got:])
                if more == 0:
                    raise EOFError
                got += more
            return self._view[8:end]
        message = bytearray(length)
        message[: got - 8] = self._view[8:got]
        view, got = memoryview(message), got - 8
        while got < length:
            more = receive_into(view[got:])
            if more == 0:
                raise EOFError
            got += more
        return message

    def close(self) -> None:
        """Close the socket; harmless when done already."""
        self.socket.close()

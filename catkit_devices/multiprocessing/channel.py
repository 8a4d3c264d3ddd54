"""One message at a time over a stream socket: a pickle behind its length, large arrays beside it.

The peers take turns (a call, its answer), so one message is all that a socket ever holds.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any
from weakref import finalize

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from catkit_devices.multiprocessing.segments import Incoming, Outgoing, Parcel, Segment

__all__ = ["Channel", "dumps", "take_over"]

_HEADER = struct.Struct("<Q")
_COUNT = 48
_MOST_PARCELS = (1 << 15) - 1
_LONG = 1 << 63
"""Marks a message whose body comes over the socket, where another thread can end a write; on a pipe it cannot."""
_LENGTH = (1 << _COUNT) - 1
_PARCEL = struct.Struct("<IQQ?I")
_BUFFER = 1 << 16
"""Bytes; what a pipe holds (pipe(7))."""
_LONGEST = _BUFFER - 8
THRESHOLD = 1 << 16
"""Bytes from which a buffer goes through shared memory; below it copying through the socket is quicker."""
_SHARES = hasattr(os, "memfd_create") and hasattr(os, "posix_fallocate")
_AT_ONCE = 1 << 26
_LOST_LENGTH = (1 << 64) - 1
_LOST = _HEADER.pack(_LOST_LENGTH)
_NO_PIPE = -1
_LOOK_OUT = 50_000
"""Nanoseconds for which an answer is looked out for before its client sleeps: to be woken on another core takes longer
than most calls do (30 to 50 us from an idle core of a virtual machine)."""


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


_dumps = pickle.dumps
_loads = pickle.loads
_clock = time.perf_counter_ns
_let_others_run = getattr(os, "sched_yield", lambda: None)


def take_over(connection: Connection) -> socket.socket:
    """Return the socket under an authenticated connection, which is no longer usable afterwards."""
    sock = socket.socket(fileno=connection.fileno())
    connection._handle = None  # type: ignore[attr-defined]
    if sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Channel:
    """The two ends of it behave alike and take turns. Not for several threads at once."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_in",
        "_incoming",
        "_local",
        "_out",
        "_outgoing",
        "_parcels",
        "_pipes",
        "_poll",
        "_view",
        "socket",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._pipes: list[int] = []
        self._in = self._out = _NO_PIPE
        self._poll: Callable[[int | None], list[Any]] | None = None
        finalize(self, _close, sock, self._pipes)  # a thread that ends leaves its line behind
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._local = _SHARES and sock.family == socket.AF_UNIX
        self._parcels: list[tuple[Parcel, Segment]] = []
        self._incoming: Incoming | None = None  # these two are made when the first large array comes
        self._outgoing: Outgoing | None = None

    def offer_pipes(self) -> None:
        """Go on over two pipes, quicker than the socket, where both ends are on one host; the other end accepts."""
        if not self._local:
            return
        there, write_there = os.pipe()
        self._pipes += [there, write_there]
        here, write_here = os.pipe()
        self._pipes += [here, write_here]
        # The other end gets both ends of what it reads, so that it can wake a reader of its own.
        socket.send_fds(self.socket, [b"\0"], [write_here, there, write_there])
        self._in, self._out = here, write_there
        for descriptor in (there, write_here):
            self._pipes.remove(descriptor)
            os.close(descriptor)

    def accept_pipes(self) -> None:
        """Go on over the pipes that the other end offers.

        Raises:
            EOFError: it is gone.
        """
        if not self._local:
            return
        _, descriptors, _, _ = socket.recv_fds(self.socket, 1, 3)
        self._pipes += descriptors
        if len(descriptors) != 3:
            raise EOFError
        self._out, self._in = descriptors[:2]
        poller = select.poll()
        poller.register(self._in, select.POLLIN)
        os.set_blocking(self._in, False)
        self._poll = poller.poll  # this end waits for answers, which come soon; the other one for questions

    def wake(self) -> None:
        """Have the thread that waits for a message on this channel, if one does, end with EOFError."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        if self._in != _NO_PIPE and len(self._pipes) == 3:
            with contextlib.suppress(OSError):
                os.write(self._pipes[2], _LOST)

    def pack(self, value: Any) -> bytes:
        """Pickle a value for ``send``; large buffers (arrays) go into shared memory where both ends are on one host."""
        if self._parcels and self._outgoing is not None:  # of a message that was never sent
            self._outgoing.forget(self._parcels)
            self._parcels = []
        try:
            data = _dumps(value, 5, buffer_callback=self._place if self._local else None)
        except Exception:  # noqa: BLE001 - a class may refuse in any way; `dumps` has the last word
            data = None
        if data is None or b"__main__" in data:
            if self._parcels and self._outgoing is not None:  # of the attempt that failed
                self._outgoing.forget(self._parcels)
                self._parcels = []
            return dumps(value, self._place if self._local else None)
        return data

    def _place(self, buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < THRESHOLD:
            return True
        if self._outgoing is None:
            from catkit_devices.multiprocessing.segments import Outgoing

            self._outgoing = Outgoing()
        try:
            self._parcels.append(self._outgoing.put(buffer))
        except OSError:  # no shared memory left: the socket takes it, more slowly
            return True
        return False

    def send(self, data: bytes) -> None:
        """Send what ``pack`` returned last.

        Raises:
            OSError: the connection is gone.
        """
        if self._parcels:
            self._send_with_parcels(data)
        elif len(data) <= _LONGEST:
            self._write(_HEADER.pack(len(data)) + data)
        else:
            self._write(_HEADER.pack(len(data) | _LONG))
            self.socket.sendall(data)

    def _write(self, data: bytes) -> None:
        """Write at most ``_BUFFER`` bytes: a pipe that is empty takes them all at once, whatever the other end does."""
        if self._out == _NO_PIPE:
            self.socket.sendall(data)
        else:
            os.write(self._out, data)

    def _send_with_parcels(self, data: bytes) -> None:
        parcels, self._parcels = self._parcels, []
        fresh = [segment.descriptor for parcel, segment in parcels if parcel.fresh]
        if fresh:
            # Descriptors need a read of their own kind: announce them and wait until the other end is ready.
            self._write(_HEADER.pack(len(fresh) << _COUNT))
            if not self.socket.recv(1):
                raise EOFError
            socket.send_fds(self.socket, [b"\0"], fresh)
        table = b"".join(_PARCEL.pack(*parcel) for parcel, _ in parcels)
        self._write(_HEADER.pack(len(table) + len(data) | len(parcels) << _COUNT | _LONG))
        self.socket.sendall(table + data)

    def receive(self) -> tuple[memoryview, list[Any]]:
        """Return the next message, unread, for ``unpack``; it is valid until the next one is asked for.

        Raises:
            EOFError: the other end is gone.
            OSError: the connection is gone.
        """
        if self._poll is not None:
            got = self._look_out(self._poll)
        elif self._in == _NO_PIPE:
            got = self.socket.recv_into(self._buffer)
        else:
            got = os.readv(self._in, (self._buffer,))
        if got > 8 and _HEADER.unpack_from(self._buffer)[0] + 8 == got:
            return self._view[8:got], _NONE
        return self._receive_on(got, [])

    def _look_out(self, poll: Callable[[int | None], list[Any]]) -> int:
        """Read what comes into the buffer; return how many bytes. The pipe does not block."""
        _let_others_run()  # or on a single core nobody could answer
        try:
            return os.readv(self._in, (self._buffer,))
        except BlockingIOError:
            end = _clock() + _LOOK_OUT
        while not poll(0):
            if _clock() > end:
                poll(None)
                break
            _let_others_run()
        return os.readv(self._in, (self._buffer,))

    def _receive_on(self, got: int, descriptors: list[int]) -> tuple[memoryview, list[Any]]:
        if got == 0:
            raise EOFError
        while got < 8:
            got += self._read(self._view[got:])
        (length,) = _HEADER.unpack_from(self._buffer)
        if length == _LOST_LENGTH:
            raise EOFError
        is_long, count, length = length & _LONG, length >> _COUNT & _MOST_PARCELS, length & _LENGTH
        if length == 0:
            return self._receive_on(self._receive_descriptors(count, descriptors), descriptors)
        got -= 8
        if is_long:
            body = self._receive_long(length, got)
        else:
            body = self._view[8 : 8 + length]
            while got < length:
                got += self._read(body[got:])
        return (body, _NONE) if count == 0 else self._take_parcels(body, count, descriptors)

    def _take_parcels(self, body: memoryview, count: int, descriptors: list[int]) -> tuple[memoryview, list[Any]]:
        from catkit_devices.multiprocessing.segments import Incoming, Parcel

        if self._incoming is None:
            self._incoming = Incoming()
        buffers = []
        for number in range(count):
            parcel = Parcel(*_PARCEL.unpack_from(body, number * _PARCEL.size))
            buffers.append(self._incoming.take(parcel, descriptors.pop(0) if parcel.fresh else None))
        return body[count * _PARCEL.size :], buffers

    def _receive_long(self, length: int, got: int) -> memoryview:
        """Return a message that comes over the socket; the buffer may have its beginning."""
        whole = bytearray(min(length, _AT_ONCE))
        whole[:got] = self._view[8 : 8 + got]
        while got < length:
            if got == len(whole):  # room for more is made only for what has come
                whole.extend(bytes(min(got, length - got)))
            with memoryview(whole)[got:] as rest:
                more = self.socket.recv_into(rest)
                if more == 0:
                    raise EOFError
                got += more
        return memoryview(whole)

    def _receive_descriptors(self, count: int, descriptors: list[int]) -> int:
        self.socket.sendall(b"\0")
        _, received, _, _ = socket.recv_fds(self.socket, 1, count)
        descriptors.extend(received)
        if len(received) != count:
            raise EOFError
        return self._read(self._view)

    def _read(self, view: memoryview) -> int:
        if self._poll is not None:
            self._poll(None)  # the pipe itself does not block
        got = self.socket.recv_into(view) if self._in == _NO_PIPE else os.readv(self._in, (view,))
        if got == 0:
            raise EOFError
        return got

    @staticmethod
    def unpack(received: tuple[memoryview, list[Any]]) -> Any:
        """Return the value of a message; raises whatever its classes raise on loading."""
        # A copy, because loading a value may use this very channel: a proxy in it asks its server what it is.
        return _loads(bytes(received[0]), buffers=received[1])

    def close(self) -> None:
        """Close the socket and the pipes; harmless when done already."""
        self._in = self._out = _NO_PIPE
        self._poll = None
        _close(self.socket, self._pipes)


def _close(sock: socket.socket, pipes: list[int]) -> None:
    sock.close()
    while pipes:
        os.close(pipes.pop())


_NONE: list[Any] = []

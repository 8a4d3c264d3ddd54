"""One message at a time over a stream socket: a pickle behind its length, large arrays beside it.

The peers take turns (a call, its answer), so one message is all that a socket ever holds.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import finalize

from catkit_devices.multiprocessing.wire.forking import making, private, receive_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection

    from catkit_devices.multiprocessing.wire.segments import Incoming, Outgoing, Parcel, Segment

__all__ = ["Arrived", "Channel", "dumps", "last_class", "loads", "take_over"]

_HEADER = struct.Struct("<Q")
_COUNT = 48
"""Bits of the header that hold the length; above them is the number of arrays."""
_COUNT_MASK = (1 << 15) - 1
"""The number of arrays has 15 bits: the highest one of the header is ``_LONG``."""
_MOST_PARCELS = 253
"""How many descriptors Linux passes in one message (SCM_MAX_FD); further arrays go over the socket."""
_LONG = 1 << 63
"""Marks a message whose body comes over the socket, where another thread can end a write; on a pipe it cannot."""
_LENGTH = (1 << _COUNT) - 1
"""The bits of the header that hold the length of the message."""
_PARCEL = struct.Struct("<IQQ?I")
_BUFFER = 1 << 16
"""Bytes; what a pipe holds (pipe(7))."""
_LONGEST = _BUFFER - 8
"""Bytes of a message that fits into an empty pipe with its header of 8 bytes."""
THRESHOLD = 1 << 16
"""Bytes from which a buffer goes through shared memory; below it copying through the socket is quicker."""
_SHARES = hasattr(os, "memfd_create") and hasattr(os, "posix_fallocate")
_AT_ONCE = 1 << 26
"""Bytes that are set aside before they have arrived: a wrong length must not take all memory."""
_NO_PIPE = -1
"""Stands for the descriptor of a pipe that there is not."""
_WITH_PIPES = b"p"
_WITHOUT_PIPES = b"s"
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


def loads(data: bytes | memoryview, buffers: Iterable[Any] = ()) -> Any:
    """Return the value that ``dumps`` was given; raises whatever its classes raise on loading, and never SystemExit.

    Raises:
        ImportError: a module that it needs ends the program when it is imported.
    """
    try:
        return _loads(data, buffers=buffers)
    except SystemExit as leaving:  # a script that reads its command line when it is imported
        raise ImportError(
            "what came does not load: a module that it needs ends the program when it is imported (SystemExit:"
            f" {leaving.code}); put what a script does when it is run under: if __name__ == '__main__'"
        ) from leaving


def last_class(message: bytes | Arrived) -> str | None:
    """Return the class or function that loading a message comes to last; None where that is not known."""
    found: list[str] = []

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found.append(f"{module}.{name}")
            return super().find_class(module, name)

    if isinstance(message, bytes):
        with contextlib.suppress(Exception, SystemExit):  # it does not load: that is known
            Unpickler(io.BytesIO(message)).load()
    return found[-1] if found else None


_dumps = pickle.dumps
_loads = pickle.loads
_clock = time.perf_counter_ns
_let_others_run = getattr(os, "sched_yield", lambda: None)


def take_over(connection: Connection) -> socket.socket:
    """Return the socket under an authenticated connection, which is no longer usable afterwards."""
    sock = getattr(connection, "socket", None) or socket.socket(fileno=connection.fileno())
    connection._handle = None  # type: ignore[attr-defined]  # noqa: SLF001 - or its __del__ would close the socket
    if sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Arrived:
    """A long message, not yet loaded: its body, and what of the shared memory beside it has come."""

    __slots__ = ("body", "descriptors", "failure", "parcels")

    def __init__(
        self, body: memoryview | bytes, parcels: int, descriptors: list[int], failure: MemoryError | None
    ) -> None:
        self.body = body
        self.parcels = parcels
        """How many arrays are in shared memory; the body begins with a table of them."""
        self.descriptors = descriptors
        """Of segments that this end does not know yet; fewer than announced where it can have no more."""
        self.failure = failure
        """Why there is no body."""

    def close(self) -> None:
        """Close the descriptors that nobody has taken."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class Channel:
    """The two ends of it behave alike and take turns. Not for several threads at once."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_ending",
        "_in",
        "_incoming",
        "_local",
        "_out",
        "_outgoing",
        "_parcels",
        "_pipes",
        "_poll",
        "_sent",
        "_view",
        "socket",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._pipes: list[int] = []
        self._in = self._out = _NO_PIPE
        self._poll: Callable[[int | None], list[Any]] | None = None
        finalize(self, _close, sock, self._pipes)  # a thread that ends leaves its connection behind
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._local = _SHARES and sock.family == socket.AF_UNIX
        self._ending = threading.Lock()
        self._parcels: list[tuple[Parcel, Segment]] = []
        self._sent: list[tuple[Parcel, Segment]] = []
        self._incoming: Incoming | None = None  # these two are made when the first large array comes
        self._outgoing: Outgoing | None = None

    def offer_pipes(self) -> None:
        """Go on over two pipes, quicker than the socket, where both ends are on one host; the other end accepts."""
        if not self._local:
            return
        pipes: list[int] = []
        try:
            with making:
                for _ in range(2):
                    pipes += map(private, os.pipe())
            there, write_there, here, write_here = pipes
            socket.send_fds(self.socket, [_WITH_PIPES], [write_here, there])
        except OSError:  # no descriptors left: the socket does it too, more slowly
            while pipes:
                os.close(pipes.pop())
            self.socket.sendall(_WITHOUT_PIPES)
            return
        self._pipes += [here, write_there]
        self._in, self._out = here, write_there
        for descriptor in (there, write_here):
            os.close(descriptor)

    def accept_pipes(self) -> None:
        """Go on over the pipes that the other end offers.

        Raises:
            EOFError: it is gone.
            OSError: this process can have no more descriptors.
        """
        if not self._local:
            return
        offer, descriptors = receive_descriptors(self.socket, 2)
        self._pipes += descriptors
        if not offer:
            raise EOFError
        if offer == _WITHOUT_PIPES:
            return
        if len(descriptors) != 2:
            raise _out_of_descriptors()
        self._out, self._in = descriptors
        poller = select.poll()
        poller.register(self._in, select.POLLIN)
        # The end that closes the connection shuts the socket down. That is seen here, also where a fork has made copies
        # of the pipes.
        poller.register(self.socket, 0)
        os.set_blocking(self._in, False)
        self._poll = poller.poll  # this end waits for answers, which come soon; the other one for questions

    def wake(self) -> None:
        """Have the thread that waits for a message on this channel, if one does, end with EOFError."""
        with self._ending, contextlib.suppress(OSError):  # guarded, or it could meet a number that is another's by now
            self.socket.shutdown(socket.SHUT_RDWR)

    def pack(self, value: Any) -> bytes:
        """Pickle a value for ``send``; large buffers (arrays) go into shared memory where both ends are on one host."""
        if self._parcels:  # of a message that was never sent
            self._forget_parcels()
        try:
            data = _dumps(value, 5, buffer_callback=self._place if self._local else None)
        except Exception:  # noqa: BLE001 - a class may refuse in any way; `dumps` has the last word
            data = None
        if data is None or b"__main__" in data:
            self._forget_parcels()  # of the attempt that failed
            return dumps(value, self._place if self._local else None)
        return data

    def _forget_parcels(self) -> None:
        if self._outgoing is not None:
            self._outgoing.forget(self._parcels)
        self._parcels = []

    def forget_sent(self) -> None:
        """Use no more what the last message has told the other end of shared memory: that end could not take it."""
        if self._outgoing is not None:
            self._outgoing.forget(self._sent)

    def _place(self, buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < THRESHOLD or len(self._parcels) == _MOST_PARCELS:
            return True
        if self._outgoing is None:
            from catkit_devices.multiprocessing.wire.segments import Outgoing

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
        self._sent = parcels
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

    def receive(self) -> bytes | Arrived:
        """Return the next message, for ``unpack``.

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
            # A copy, because loading a value may use this very channel: a proxy in it asks its server what it is.
            return bytes(self._view[8:got])
        return self._receive_on(got)

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
        return self._read_pipe(self._view)

    def _receive_on(self, got: int) -> bytes | Arrived:
        descriptors: list[int] = []
        length = 0
        while length == 0:  # what comes first may be the announcement of descriptors
            if got == 0:
                raise EOFError
            while got < 8:
                got += self._read(self._view[got:])
            (word,) = _HEADER.unpack_from(self._buffer)
            is_long, count, length = word & _LONG, word >> _COUNT & _COUNT_MASK, word & _LENGTH
            if length == 0:
                got = self._receive_descriptors(count, descriptors)
        got -= 8
        if is_long:
            return self._receive_long(length, got, count, descriptors)
        body = self._view[8 : 8 + length]
        while got < length:
            got += self._read(body[got:])
        return bytes(body)

    def _receive_long(self, length: int, got: int, parcels: int, descriptors: list[int]) -> Arrived:
        """Return a message that comes over the socket; the buffer may have its beginning."""
        try:
            whole = bytearray(min(length, _AT_ONCE))
            whole[:got] = self._view[8 : 8 + got]
            while got < length:
                if got == len(whole):  # room for more is made only for what has come
                    whole.extend(bytes(min(got, length - got)))
                with memoryview(whole)[got:] as rest:
                    got += self._read_socket(rest)
        except MemoryError as error:
            whole = bytearray()  # there is room again, to say what was missing
            while got < length:
                got += self._read_socket(self._view[: length - got])
            return Arrived(b"", parcels, descriptors, error)
        return Arrived(memoryview(whole), parcels, descriptors, None)

    def _receive_descriptors(self, count: int, descriptors: list[int]) -> int:
        self.socket.sendall(b"\0")
        sent, received, _, _ = socket.recv_fds(self.socket, 1, count)
        if not sent:
            raise EOFError
        descriptors.extend(received)
        return self._read(self._view)

    def _read(self, view: memoryview) -> int:
        if self._poll is not None:
            self._poll(None)  # the pipe itself does not block
        return self._read_socket(view) if self._in == _NO_PIPE else self._read_pipe(view)

    def _read_pipe(self, view: memoryview) -> int:
        try:
            got = os.readv(self._in, (view,))
        except BlockingIOError:
            got = 0  # it was the socket that woke this thread: the connection was dropped
        if got == 0:
            raise EOFError
        return got

    def _read_socket(self, view: memoryview) -> int:
        got = self.socket.recv_into(view)
        if got == 0:
            raise EOFError
        return got

    def unpack(self, message: bytes | Arrived) -> Any:
        """Return the value of a message; raises whatever its classes raise on loading.

        Raises:
            MemoryError, OSError: this process is short of memory or of descriptors; the connection is as before.
        """
        if isinstance(message, bytes):
            return loads(message)
        try:
            return self._load(message)
        finally:
            message.close()

    def _load(self, message: Arrived) -> Any:
        if message.failure is not None:
            raise message.failure
        if not message.parcels:
            return loads(message.body)
        from catkit_devices.multiprocessing.wire.segments import Incoming, Parcel

        if self._incoming is None:
            self._incoming = Incoming()
        buffers = []
        for number in range(message.parcels):
            parcel = Parcel(*_PARCEL.unpack_from(message.body, number * _PARCEL.size))
            if parcel.fresh and not message.descriptors:
                raise _out_of_descriptors()
            buffers.append(self._incoming.take(parcel, message.descriptors.pop(0) if parcel.fresh else None))
        return loads(message.body[message.parcels * _PARCEL.size :], buffers)

    def close(self) -> None:
        """Drop the connection: the other end notices at once, whoever has copies of it. Harmless when done already."""
        with self._ending:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.close_copy()

    def close_copy(self) -> None:
        """Close what this process has of it; where a fork has made two of it, the other one goes on."""
        self._in = self._out = _NO_PIPE
        self._poll = None
        _close(self.socket, self._pipes)


def _close(sock: socket.socket, pipes: list[int]) -> None:
    sock.close()
    while pipes:
        os.close(pipes.pop())


def _out_of_descriptors() -> OSError:
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))

"""One message at a time over a stream socket: the length, then a pickle; large arrays go through shared memory.

A message is a tuple. If an array is the only value in it that is not a number or a text, the array is sent in pieces:
its shape, type and data. Such a message is sent as a list, which begins with the place of the array. Without this,
numpy's own pickling of a small array would take longer than the rest of a call.

An array of some kB is on the *tray*: one piece of shared memory for each direction of a connection. The receiver copies
it from there before it does anything else, so the next message can use the same tray.

The two ends take turns (a call, its answer), so there is never more than one message in the socket.
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

    import numpy as np

    from catkit_devices.multiprocessing.wire.segments import Incoming, Outgoing, Parcel, Segment

__all__ = ["Arrived", "Channel", "dumps", "last_class", "loads", "take_over"]

_HEADER = struct.Struct("<Q")
"""What every message begins with: 8 bytes, of which the next constants name the bits."""
_COUNT = 48
"""Bits of the header that hold the length; above them is the number of arrays."""
_COUNT_MASK = (1 << 14) - 1
"""The number of arrays has 14 bits; above them are ``_TRAY`` and ``_LONG``."""
_MOST_PARCELS = 253
"""How many descriptors Linux sends in one message (SCM_MAX_FD); further arrays go over the socket."""
_TRAY = 1 << 62
"""Marks a message with an array on the tray; behind the header are 8 bytes: the size of the array, and ``_NEW``."""
_ON_TRAY = struct.Struct("<QQ")
"""What such a message begins with."""
_NEW = 1 << 32
"""Marks an array on a new tray, whose descriptor was sent before the message."""
_LONG = 1 << 63
"""Marks a message whose body comes over the socket. Another thread can end a write to a socket, but not to a pipe."""
_LENGTH = (1 << _COUNT) - 1
"""The bits of the header that hold the length of the message."""
_PARCEL = struct.Struct("<IQQ?I")
"""What is sent of each array: the layout of a ``Parcel``."""
_BUFFER = 1 << 16
"""Bytes that fit into a pipe (pipe(7))."""
_LONGEST = _BUFFER - 8
"""Bytes of a message that fits into an empty pipe with its header of 8 bytes."""
SMALLEST = 1 << 12
"""Bytes from which an array is put on the tray; a smaller one is faster inside of the message."""
THRESHOLD = 1 << 16
"""Bytes from which a buffer has shared memory of its own, where the receiver uses it; to copy it would take longer."""
_SHARES = hasattr(os, "memfd_create") and hasattr(os, "posix_fallocate")
"""Whether this system can send memory to another process; elsewhere arrays go over the socket."""
_AT_ONCE = 1 << 26
"""Bytes of memory that are allocated before the data has arrived: a wrong length must not use up all memory."""
_NO_PIPE = -1
"""Used in place of a descriptor if there is no pipe."""
_WITH_PIPES = b"p"
"""Sent at the start of a connection, together with two pipes."""
_WITHOUT_PIPES = b"s"
"""Sent at the start of a connection where there are no pipes: everything goes over the socket."""
_LOOK_OUT = 50_000
"""Nanoseconds for which a client polls for its answer before it sleeps. To wake it up would take longer than most calls
do (30 to 50 us on an idle core of a virtual machine)."""


_PLAIN = frozenset({bool, bytes, complex, float, int, str, type(None)})
"""Types of values that contain no others."""
_NUMBERS = frozenset("?bBhHiIlLqQefdgFDG")
"""Numpy's letters for the types of numbers."""
_WITHOUT = frozenset({dict, list})
"""Types of values that contain others and are no array."""
_FEW = 8
"""How many arguments, or elements of a result, are looked at for an array: to look at thousands would take long."""
_WHOLE = -1
"""Place of an array in an element of a message: it is the element itself."""


def dumps(value: Any, buffers: Callable[[pickle.PickleBuffer], object] | None = None) -> bytes:
    """Return ``value`` pickled; what is defined in ``__main__``, or cannot be sent by reference, is sent by value.

    ``buffers`` is called for each large buffer, and returns whether it stays in the pickle (else it is sent apart).
    """
    try:
        data = pickle.dumps(value, 5, buffer_callback=buffers)
    except Exception:  # noqa: BLE001 - a class may raise anything; then cloudpickle is tried
        data = None
    if data is None or b"__main__" in data:
        import cloudpickle

        by_value: bytes = cloudpickle.dumps(value, 5, buffer_callback=buffers)
        return by_value
    return data


def loads(data: bytes | memoryview, buffers: Iterable[Any] = ()) -> Any:
    """Return the value that ``dumps`` has pickled; raises the errors of its classes on loading, but never SystemExit.

    Raises:
        ImportError: a module that it needs calls ``exit()`` when it is imported.
    """
    try:
        return _loads(data, buffers=buffers)
    except SystemExit as leaving:  # a script that reads its command line when it is imported
        raise ImportError(
            "the data cannot be loaded: a module that it needs ends the program when it is imported (SystemExit:"
            f" {leaving.code}); put what a script does when it is run under: if __name__ == '__main__'"
        ) from leaving


def last_class(message: bytes | Arrived) -> str | None:
    """Return the last class or function that is looked up when a message is loaded; None if that is not known."""
    found: list[str] = []

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found.append(f"{module}.{name}")
            return super().find_class(module, name)

    if isinstance(message, bytes):
        with contextlib.suppress(Exception, SystemExit):  # it fails as before; only the names are wanted
            Unpickler(io.BytesIO(message)).load()
    return found[-1] if found else None


_dumps = pickle.dumps
_loads = pickle.loads
_clock = time.perf_counter_ns
_let_others_run = getattr(os, "sched_yield", lambda: None)


def take_over(connection: Connection) -> socket.socket:
    """Return the socket under an authenticated connection, which is no longer usable afterwards."""
    sock = getattr(connection, "socket", None) or socket.socket(fileno=connection.fileno())
    connection._handle = None  # type: ignore[attr-defined]  # noqa: SLF001 - else its __del__ would close the socket
    if sock.family != getattr(socket, "AF_UNIX", None):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Arrived:
    """A message that is not loaded yet, and is long or has arrays in shared memory."""

    __slots__ = ("body", "descriptors", "failure", "from_tray", "parcels")

    def __init__(
        self,
        body: memoryview | bytes,
        parcels: int,
        descriptors: list[int],
        failure: MemoryError | OSError | None,
        from_tray: bytearray | None = None,
    ) -> None:
        self.body = body
        self.from_tray = from_tray
        """The data of the array that was on the tray."""
        self.parcels = parcels
        """How many arrays are in shared memory; the body begins with a table of them."""
        self.descriptors = descriptors
        """Of segments that are new at this end; fewer than announced if this process has no descriptors left."""
        self.failure = failure
        """The error because of which there is no body, or None."""

    def close(self) -> None:
        """Close the descriptors that were not used."""
        while self.descriptors:
            os.close(self.descriptors.pop())


class Channel:
    """One end of a connection; both ends work in the same way and take turns. For one thread at a time."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_ending",
        "_in",
        "_incoming",
        "_local",
        "_on_tray",
        "_out",
        "_outgoing",
        "_packed",
        "_parcels",
        "_pipes",
        "_poll",
        "_sent",
        "_tray",
        "_tray_there",
        "_view",
        "socket",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._pipes: list[int] = []
        self._in = self._out = _NO_PIPE
        self._poll: Callable[[int | None], list[Any]] | None = None
        finalize(self, _close, sock, self._pipes)  # a thread that ends does not close its connection
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._local = _SHARES and sock.family == socket.AF_UNIX
        self._ending = threading.Lock()
        self._parcels: list[tuple[Parcel, Segment]] = []
        self._sent: list[tuple[Parcel, Segment]] = []
        self._tray: Segment | None = None
        self._tray_there: memoryview | None = None
        """The tray of the other end."""
        self._on_tray = 0
        """Bytes on the tray."""
        self._packed: bytes | None = None
        """The message to which ``_parcels`` and what is on the tray belong."""
        self._incoming: Incoming | None = None  # these two are made when the first large array comes
        self._outgoing: Outgoing | None = None

    def offer_pipes(self) -> None:
        """If both ends are on one host, use two pipes from now on, which are faster; the other end accepts them."""
        if not self._local:
            return
        pipes: list[int] = []
        try:
            with making:
                for _ in range(2):
                    pipes += map(private, os.pipe())
            there, write_there, here, write_here = pipes
            socket.send_fds(self.socket, [_WITH_PIPES], [write_here, there])
        except OSError:  # no descriptors left: the socket is used, which is slower
            for descriptor in pipes:
                os.close(descriptor)
            self.socket.sendall(_WITHOUT_PIPES)
            return
        self._pipes += [here, write_there]
        self._in, self._out = here, write_there
        for descriptor in (there, write_here):
            os.close(descriptor)

    def accept_pipes(self) -> None:
        """Use the pipes that the other end offers from now on.

        Raises:
            EOFError: the other end is closed.
            OSError: this process has no descriptors left.
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
        # The end that closes the connection shuts the socket down. This is noticed here even if a fork has made copies
        # of the pipes.
        poller.register(self.socket, 0)
        os.set_blocking(self._in, False)
        self._poll = poller.poll  # this end waits for answers, which come soon; the other end waits for calls

    def wake(self) -> None:
        """If a thread waits for a message on this channel, end its wait with EOFError."""
        with self._ending, contextlib.suppress(OSError):  # locked: else the descriptor's number may be in use again
            self.socket.shutdown(socket.SHUT_RDWR)

    def pack(self, message: tuple[Any, ...], where: int | None = None) -> bytes:
        """Pickle a message for ``send``; large buffers (arrays) go into shared memory if both ends are on one host.

        Args:
            message: what the other end gets from ``unpack``.
            where: the element that may be an array, or a tuple with an array, which is then sent faster; no other
                element of the message may contain the same array.
        """
        self._on_tray = 0
        if self._parcels:  # they belong to a message that was never sent
            self._forget_parcels()
        whole: tuple[Any, ...] | list[Any] = message
        plain = False
        if where is not None:
            element = message[where]
            kind = type(element)
            if kind is not tuple:
                plain = kind in _PLAIN
                if not plain and kind not in _WITHOUT:
                    whole = self._in_pieces(message, where, _WHOLE, element)
            elif len(element) <= _FEW:
                for value in element:
                    if type(value) not in _PLAIN:
                        found = None if type(value) in _WITHOUT else _only_one(element)
                        if found is not None:
                            whole = self._in_pieces(message, where, found, element[found])
                        break
                else:
                    plain = True
        place = None if plain or not self._local else self._place
        try:
            # Without the callback, where nothing is to be called back for, pickling takes half the time.
            data = _dumps(whole, 5) if place is None else _dumps(whole, 5, buffer_callback=place)
        except Exception:  # noqa: BLE001 - a class may raise anything; then `dumps` is tried
            data = None
        if data is None or b"__main__" in data:
            self._on_tray = 0
            self._forget_parcels()  # they belong to the attempt that failed
            data = dumps(message, place)
        self._packed = data
        return data

    def _in_pieces(self, message: tuple[Any, ...], where: int, found: int, array: Any) -> tuple[Any, ...] | list[Any]:
        """Return what is pickled for a message with an array; the message itself if it is an array of another kind.

        Args:
            message: the message.
            where: the element with the array.
            found: its place in the element, which is a tuple; or ``_WHOLE``.
            array: the array, or any other object.
        """
        kind = type(array)
        if kind.__module__ != "numpy" or kind.__qualname__ != "ndarray":  # numpy itself may not be needed here
            return message
        dtype = array.dtype
        if dtype.char not in _NUMBERS or not dtype.isnative or dtype.metadata is not None or not array.flags.carray:
            return message
        size = array.nbytes
        data = None
        if not (SMALLEST <= size < THRESHOLD and self._put_on_tray(array, size)):
            data = pickle.PickleBuffer(array)
        pieces = (array.shape, dtype.str, data)  # with byte order and size: the receiver may be another computer
        sent: list[Any] = [where, found, *message]
        if found == _WHOLE:
            sent[where + 2] = pieces
        else:
            sent[where + 2] = element = list(message[where])
            element[found] = pieces
        return sent

    def _put_on_tray(self, array: Any, size: int) -> bool:
        tray = self._tray
        if tray is None:
            if not self._local:
                return False
            from catkit_devices.multiprocessing.wire.segments import Segment

            try:
                self._tray = tray = Segment(0, THRESHOLD)
            except OSError:  # no shared memory left: the array is sent inside of the message, which is slower
                return False
        tray.map[:size] = array
        self._on_tray = size
        return True

    def _forget_parcels(self) -> None:
        if self._outgoing is not None:
            self._outgoing.forget(self._parcels)
        self._parcels = []

    def forget_sent(self) -> None:
        """Do not use the shared memory of the last message again: the other end could not map it."""
        self._tray = None
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
        except OSError:  # no shared memory left: it goes over the socket, which is slower
            return True
        return False

    def send(self, data: bytes) -> None:
        """Send what ``pack`` returned last.

        Raises:
            OSError: the connection is gone.
        """
        if data is not self._packed:
            # A finalizer or a signal handler has packed another message since. If this one had an array, it arrives
            # without, which is an error there.
            self._on_tray = 0
            self._forget_parcels()
        self._packed = None
        if self._on_tray:
            self._send_with_tray(data)
        elif self._parcels:
            self._send_with_parcels(data)
        elif len(data) <= _LONGEST:
            self._write(_HEADER.pack(len(data)) + data)
        else:
            self._write(_HEADER.pack(len(data) | _LONG))
            self.socket.sendall(data)

    def _write(self, data: bytes) -> None:
        """Write at most ``_BUFFER`` bytes: these fit into an empty pipe at once, whatever the other end does."""
        if self._out == _NO_PIPE:
            self.socket.sendall(data)
        else:
            os.write(self._out, data)

    def _send_with_tray(self, data: bytes) -> None:
        tray, size, self._on_tray = self._tray, self._on_tray, 0
        if tray is not None and not tray.told:
            self._send_descriptors([tray.descriptor])
            tray.told = True
            size |= _NEW
        if len(data) <= _LONGEST - 8:
            self._write(_ON_TRAY.pack(len(data) + 8 | _TRAY, size) + data)
        else:  # beside the array there is a long text
            self._write(_HEADER.pack(len(data) + 8 | _TRAY | _LONG))
            self.socket.sendall(_HEADER.pack(size) + data)

    def _send_with_parcels(self, data: bytes) -> None:
        parcels, self._parcels = self._parcels, []
        self._sent = parcels
        fresh = [segment.descriptor for parcel, segment in parcels if parcel.fresh]
        if fresh:
            self._send_descriptors(fresh)
        body = b"".join([*(_PARCEL.pack(*parcel) for parcel, _ in parcels), data])
        word = len(body) | len(parcels) << _COUNT
        if len(body) <= _LONGEST:
            self._write(_HEADER.pack(word) + body)
        else:
            self._write(_HEADER.pack(word | _LONG))
            self.socket.sendall(body)

    def _send_descriptors(self, descriptors: list[int]) -> None:
        # The other end must read descriptors in another way: announce them, and wait until it is ready.
        self._write(_HEADER.pack(len(descriptors) << _COUNT))
        if not self.socket.recv(1):
            raise EOFError
        socket.send_fds(self.socket, [b"\0"], descriptors)

    def receive(self) -> bytes | Arrived:
        """Return the next message, for ``unpack``.

        Raises:
            EOFError: the other end is closed.
            OSError: the connection is lost.
        """
        if self._poll is not None:
            got = self._look_out(self._poll)
        elif self._in == _NO_PIPE:
            got = self.socket.recv_into(self._buffer)
        else:
            got = os.readv(self._in, (self._buffer,))
        if got > 8:
            (word,) = _HEADER.unpack_from(self._buffer)
            if word + 8 == got:
                # A copy, because loading a value may use this same channel: a proxy in it asks its server about itself.
                return bytes(self._view[8:got])
            if word - _TRAY + 8 == got:
                return self._with_tray(bytes(self._view[8:got]), [])
        return self._receive_on(got)

    def _look_out(self, poll: Callable[[int | None], list[Any]]) -> int:
        """Poll for the answer, then sleep until it comes; read it into the buffer, and return its length in bytes."""
        _let_others_run()  # on a single core the server could not answer otherwise
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
        try:
            return self._receive_rest(got, descriptors)
        except BaseException:
            while descriptors:
                os.close(descriptors.pop())
            raise

    def _receive_rest(self, got: int, descriptors: list[int]) -> bytes | Arrived:
        length = 0
        while length == 0:  # the first header may announce descriptors
            if got == 0:
                raise EOFError
            while got < 8:
                got += self._read(self._view[got:])
            (word,) = _HEADER.unpack_from(self._buffer)
            count, length = word >> _COUNT & _COUNT_MASK, word & _LENGTH
            if length == 0:
                got = self._receive_descriptors(count, descriptors)
        got -= 8
        if word & _LONG:
            arrived = self._receive_long(length, got, count, descriptors)
            on_tray = word & _TRAY and arrived.failure is None
            return self._with_tray(arrived.body, descriptors) if on_tray else arrived
        while got < length:
            got += self._read(self._view[8 + got : 8 + length])
        body = bytes(self._view[8 : 8 + length])
        if word & _TRAY:
            return self._with_tray(body, descriptors)
        return Arrived(body, count, descriptors, None) if count else body

    def _with_tray(self, body: bytes | memoryview, descriptors: list[int]) -> Arrived:
        """Return a message with the array from the tray, copied now: the next message may use the same tray."""
        (size,) = _HEADER.unpack_from(body)
        failure: OSError | None = None
        if size & _NEW:
            self._tray_there = None
            try:
                self._map_tray(descriptors)
            except OSError as error:
                failure = error
        tray = self._tray_there
        data = None if tray is None else bytearray(tray[: size & ~_NEW])
        return Arrived(body[8:], 0, descriptors, failure, data)

    def _map_tray(self, descriptors: list[int]) -> None:
        import mmap

        if not descriptors:
            raise _out_of_descriptors()
        self._tray_there = memoryview(mmap.mmap(descriptors[0], THRESHOLD))

    def _receive_long(self, length: int, got: int, parcels: int, descriptors: list[int]) -> Arrived:
        """Return a message that comes over the socket; its beginning may be in the buffer already."""
        try:
            whole = bytearray(min(length, _AT_ONCE))
            whole[:got] = self._view[8 : 8 + got]
            while True:
                if got >= length:
                    break
                if got == len(whole):  # memory grows only with the data that has arrived
                    whole.extend(bytes(min(got, length - got)))
                with memoryview(whole)[got:] as rest:
                    got += self._read_socket(rest)
        except MemoryError as error:
            whole = bytearray()  # frees memory, so that the error can be sent
            while True:
                if got >= length:
                    break
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
            got = 0  # this thread was woken by the socket: the connection was closed
        if got == 0:
            raise EOFError
        return got

    def _read_socket(self, view: memoryview) -> int:
        got = self.socket.recv_into(view)
        if got == 0:
            raise EOFError
        return got

    def unpack(self, message: bytes | Arrived) -> Any:
        """Return the value of a message; raises the errors of its classes on loading.

        Raises:
            MemoryError, OSError: this process has not enough memory or descriptors; the connection stays usable.
        """
        if isinstance(message, bytes):
            value = loads(message)
            return _put_together(value, None) if type(value) is list else value
        try:
            value = self._load(message)
            return _put_together(value, message.from_tray) if type(value) is list else value
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
        """Close the connection: the other end notices at once, even if there are copies of it. May be called twice."""
        with self._ending:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.close_copy()

    def close_copy(self) -> None:
        """Close only this process's copy of the connection: if a fork has made two of it, the other stays open."""
        self._in = self._out = _NO_PIPE
        self._poll = None
        _close(self.socket, self._pipes)


def _close(sock: socket.socket, pipes: list[int]) -> None:
    sock.close()
    while pipes:
        os.close(pipes.pop())


def _only_one(values: tuple[Any, ...]) -> int | None:
    """Return the place of the value that is not plain; None if there is none, or several.

    Several values that are not plain may share an object, and have to share it at the other end, too.
    """
    found = None
    for place, value in enumerate(values):
        if type(value) not in _PLAIN:
            if found is not None:
                return None
            found = place
    return found


def _put_together(sent: list[Any], from_tray: bytearray | None) -> list[Any]:
    """Return the elements of a message in which an array was in pieces.

    Raises:
        RuntimeError: the array did not come with it, because its sender has packed another message before it was sent.
    """
    import numpy as np  # quicker than `from numpy import`, where it is imported already

    where, found = sent[:2]
    del sent[:2]
    element = sent[where]
    shape, kind, data = element if found == _WHOLE else element[found]
    if data is None:
        data = from_tray
    if data is None:  # numpy would return an array of whatever is in memory
        raise RuntimeError("an array did not arrive: another message was packed before this one was sent")
    array: np.ndarray[Any, Any] = np.ndarray(shape, kind, data)
    if found == _WHOLE:
        sent[where] = array
    else:
        element[found] = array
        sent[where] = tuple(element)
    return sent


def _out_of_descriptors() -> OSError:
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))

"""The bytes of one opened VISA resource, counted, matched and waited for.

This module knows bytes only. The modules above it decide what they mean, and which error is raised when they do not
come.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["IncompleteReplyError", "Line", "simulated_clock"]

_SLICE = 0.1
"""Seconds for which a stream is waited on at a time, so that a cancelled operation ends soon. So long a reply may take
in any case: most replies come sooner, and then the line stays in step although the operation was cancelled."""

_POLL = 0.001
"""Seconds between two looks whether bytes have come, at first."""

_LATER = 0.05
"""Part of a wait between two looks later: an answer is seen late by this at most, and looking costs little."""

_STARVED = 30.0
"""Seconds allowed for reading bytes that are there: this takes no time, unless the operating system does not run this
process meanwhile."""

_PORTION = 256
"""Bytes of a reply after which the whole timeout begins again: so many come within 2 s even at 1200 baud. A line that
sends less is as good as silent."""

_CHUNK = 20 << 10
"""Bytes that a library is asked for at a time if it does not tell how many have come: as many as pyvisa asks for. The
timeout of VISA is for one such read."""

_LONGEST_REPLY = 256 << 20
"""Bytes after which a reply that does not end is given up, before it fills the memory. The longest replies of
oscilloscopes, numbers as text, are a tenth of it."""


class IncompleteReplyError(TimeoutError):
    """A reply did not come, or not to its end; ``received`` is what did come."""

    def __init__(self, waited: float, received: bytes) -> None:
        got = f"only {received[:80]!r}" if received else "no reply"
        if len(received) > _PORTION:
            got = f"after {len(received)} bytes, which begin with {received[:80]!r}, no {_PORTION} more"
        super().__init__(f"{got} in {waited:g} s")
        self.waited = waited
        self.received = received

    def __reduce__(self) -> tuple[type[IncompleteReplyError], tuple[float, bytes]]:
        """Return how it is made again in another process, to which it goes as the cause of an error.

        That happens where a package such as dask has tblib make causes travel with every exception.
        """
        return type(self), (self.waited, self.received)


class Line:
    """An opened VISA resource, as bytes. Its user holds the wire lock of the address.

    A *stream* (a serial port, a socket) carries plain bytes; every other interface carries messages, whose ends it
    marks itself. Waiting is counted by what the library was asked to wait, which in a simulation need not be the
    wall's time.

    Args:
        resource: from pyvisa, opened; it stays the caller's to close.
        settings: attributes of the resource that are set if it is a serial port.

    Attributes:
        resource: the same.
        stream: whether it is one.
    """

    def __init__(self, resource: Any, settings: Mapping[str, Any]) -> None:
        from pyvisa import constants

        self.resource = resource
        self._timeout: float | None = None
        self._keeps = False
        """Whether the timeout is to be what it was when somebody else's work is done in between."""
        self._kept: float | None = None
        """What it was, in milliseconds."""
        self._uncut = 0.0
        """Seconds for which replies are still waited for although the operation may have been cancelled."""
        self._stop: int | None = None
        """The byte at which the library ends a read; None for none, or if it was never set."""
        self._received = bytearray()
        self._serial = resource.interface_type == constants.InterfaceType.asrl
        self._socket: socket.socket | None = None
        if self._serial:
            for name, value in settings.items():
                setattr(resource, name, value)
            # Bytes are counted and matched here; the library must not stop at one that looks like an end.
            resource.end_input = constants.SerialTermination.none
        over_tcp = (resource.interface_type, resource.resource_class) == (constants.InterfaceType.tcpip, "SOCKET")
        if over_tcp:
            self._socket = _socket_of(resource)
            _send_at_once(resource, self._socket)
        self.stream = self._serial or over_tcp

    @contextlib.contextmanager
    def keeping_timeout(self) -> Iterator[None]:
        """Leave the library's timeout as it was before: somebody else, who uses the same session, has set it."""
        outer = self._keeps, self._kept
        self._timeout, self._keeps, self._kept = None, True, None  # what it is is not known any more
        try:
            yield
        finally:
            self._put_back()
            self._keeps, self._kept = outer

    def _put_back(self) -> None:
        if self._kept is not None:
            self.resource.timeout = self._kept
        self._timeout = None

    def begin(self) -> None:
        """Begin an exchange: in its first 0.1 s of waiting, no reply is given up because the operation is cancelled.

        A reply that nobody has read makes the line useless until it has been silent for a long time. To wait this short
        time costs less.
        """
        self._uncut = _SLICE

    def write(self, data: bytes, timeout: float) -> None:
        """Send ``data``."""
        self._set_timeout(timeout)
        self.resource.write_raw(data)

    def read_until(self, end: bytes, timeout: float, check: Callable[[], None]) -> bytes:
        """Return what comes before ``end``, which is matched as a whole and taken off the line.

        Args:
            end: any number of bytes, at least one.
            timeout: seconds for each 256 bytes; for each 20 KiB if the library does not tell how much has come.
            check: called every 0.1 s until the reply begins, but not in the first 0.1 s of an exchange; what it raises
                ends the wait. If the library cannot say how much has come (a vendor's, on a socket), the rest is waited
                for in one read.

        Raises:
            IncompleteReplyError: it did not come in time.
            ValueError: 256 MiB came without an end.
        """
        deadline = _Budget(timeout)
        searched = 0
        while (found := self._received.find(end, max(0, searched - len(end) + 1))) < 0:
            searched = len(self._received)
            _refuse_endless(self._received, repr(end))
            self._fill(deadline, check, end=end)
        line = self._take(found)
        self._take(len(end))
        return line

    def read_message(self, end: bytes, timeout: float, check: Callable[[], None]) -> bytes:
        """Return one reply without its ``end``: on a stream, up to there; else the message as the interface ends it.

        Raises:
            IncompleteReplyError: it did not come in time.
            ValueError: a message did not end so, because part of it is missing or something was added.
        """
        if self.stream:
            return self.read_until(end, timeout, check)
        if not self._received:
            self._fill(_Budget(timeout), check)
        message = self._take(len(self._received))
        if not message.endswith(end):
            raise ValueError(f"a message that ends with {end!r} was expected, got {message[-80:]!r}")
        return message.removesuffix(end)

    def read_bytes(self, count: int, timeout: float, check: Callable[[], None]) -> bytes:
        """Return exactly ``count`` bytes, whatever they are; ``timeout`` is as for :meth:`read_until`.

        Raises:
            IncompleteReplyError: they did not come in time.
        """
        deadline = _Budget(timeout)
        while (missing := count - len(self._received)) > 0:
            self._fill(deadline, check, min(missing, _CHUNK))
        return self._take(count)

    def read_end(self, end: bytes, timeout: float, check: Callable[[], None]) -> None:
        """Take the ``end`` of a reply whose content was read by its count.

        An interface that marks the ends of messages may mark it at the last byte of the content, with nothing behind
        it: IEEE 488.2 asks for a newline there (8.5), but many instruments leave it out behind a block.

        Raises:
            IncompleteReplyError: it did not come in time.
            ValueError: something else came.
        """
        found = self.read_bytes(len(end), timeout, check) if self.stream else self._take(len(self._received))
        if found != end and (self.stream or found):
            raise ValueError(f"{end!r} was expected behind the block, got {found[:80]!r}")

    def unread(self) -> bytes:
        """Return what is waiting to be read, or the beginning of it, without waiting; b"" when there is nothing.

        Only streams are looked at: an instrument with messages forgets an unread reply when the next command comes.

        Raises:
            ConnectionResetError: the other end has closed the connection.
        """
        if self.stream and not self._received:
            waiting = self._waiting()
            if waiting is None:
                self._set_timeout(0.0)
                self._received += self._visa_read(1)
            else:
                self._received += self._read_waiting(waiting)
        return bytes(self._received[:80])

    def wait_until_readable(self, timeout: float, check: Callable[[], None]) -> bool:
        """Wait until bytes can be read; where the interface cannot tell, do not wait.

        Args:
            timeout: seconds.
            check: called every 0.1 s, but not in the first 0.1 s of an exchange; what it raises ends the wait.

        Returns:
            Whether there are bytes, or there may be.
        """
        waited = 0.0
        while self.stream and self._waiting() == 0:
            if waited >= timeout:
                return False
            step = min(_SLICE, max(_POLL, waited * _LATER), timeout - waited)
            _sleep(self.resource.visalib, step, partial(self._look, check))
            self._uncut -= step
            waited += step
        return True

    def settle(self, window: float, timeout: float, check: Callable[[], None]) -> None:
        """Wait until the line has been silent for ``window`` seconds, and throw away what came until then.

        Args:
            window: seconds.
            timeout: seconds beyond ``window`` after which a line that never falls silent is given up.
            check: called at least every 0.1 s.

        Raises:
            TimeoutError: it never fell silent.
        """
        deadline = _Budget(window + timeout)
        if not self.stream and self._clear():
            # An instrument must not be asked for a reply that it does not have, so this is waited for, not read.
            _sleep(self.resource.visalib, window, check)
            self._clear()
            self._received.clear()
            return
        silence = _Budget(window)
        while silence.left > 0:
            check()
            self._received.clear()
            slice_ = min(_SLICE, silence.left)
            self._set_timeout(slice_)
            begun = time.monotonic()
            if self._visa_read(1 if self.stream else _CHUNK):
                self._throw_away()
                deadline.spend(time.monotonic() - begun)
                silence = _Budget(window)
                if deadline.left <= 0:
                    raise TimeoutError(f"bytes kept coming for {deadline.total:g} s")
            else:
                silence.spend(slice_)
                deadline.spend(slice_)

    def discard(self) -> None:
        """Throw away what has come so far."""
        self._received.clear()
        while self.stream and self.unread():
            self._throw_away()
            self._received.clear()

    def status_byte(self) -> int:
        """Return the status byte of the instrument; 0 where the interface or the library cannot read it."""
        import pyvisa

        if self.stream:
            return 0
        try:
            return int(self.resource.read_stb())
        except NotImplementedError:
            return 0
        except pyvisa.VisaIOError as error:
            if error.error_code != pyvisa.constants.StatusCode.error_nonsupported_operation:
                raise
            return 0

    # --- below

    def _throw_away(self) -> None:
        """Throw away what can be read from a stream without waiting."""
        while waiting := self._waiting():
            self._read_waiting(waiting)
        if self.stream and waiting is None:
            # Bytes that a read has taken before it times out are lost; here they are to be discarded anyway.
            self._set_timeout(0.0)
            self._stop_at(None)
            self._visa_read(_CHUNK)

    def _take(self, count: int) -> bytes:
        taken = bytes(memoryview(self._received)[:count])
        del self._received[:count]
        return taken

    def _fill(self, deadline: _Budget, check: Callable[[], None], count: int = 0, end: bytes = b"") -> None:
        """Receive at least one byte: a complete message if the interface has messages, else the bytes that are there.

        Args:
            deadline: of the wait.
            check: called every 0.1 s, but not in the first 0.1 s of an exchange.
            count: how many bytes are sure to come; 0 if that is not known.
            end: what ends the reply, if its length is not known.
        """
        while deadline.left > 0:
            self._look(check)
            slice_ = min(_SLICE, deadline.left) if self.stream else deadline.left
            self._set_timeout(slice_)
            begun = time.monotonic()
            # A read that times out loses what it had, so on a stream the first byte is waited for alone.
            data = self._visa_read(1) if self.stream else self._read_whole_message()
            spent = time.monotonic() - begun if data else slice_
            deadline.spend(spent)
            self._uncut -= spent
            if data:
                before = len(self._received)
                self._received += data
                if self.stream:
                    self._fill_up(deadline, count - 1, b"" if data == end[-1:] else end[-1:])
                deadline.earn(len(self._received) - before)
                return
            self._waiting()  # raises an error if the connection is gone
        raise IncompleteReplyError(deadline.total, bytes(self._received))

    def _look(self, check: Callable[[], None]) -> None:
        if self._uncut <= 0:
            check()

    def _fill_up(self, deadline: _Budget, count: int, stop: bytes) -> None:
        """Receive the other bytes that are there.

        If the interface cannot tell how many, receive ``count`` bytes, or everything up to the byte
        ``stop``: the library takes nothing behind it from the line, and a read that ends so does not time out.
        """
        from pyvisa.constants import StatusCode

        waiting = self._waiting()
        if waiting is None and (count > 0 or stop):
            self._stop_at(stop[0] if stop else None)
            timeout = max(deadline.left, _SLICE)
            self._set_timeout(timeout)
            begun = time.monotonic()
            data, status = self._visa_read_status(_CHUNK if stop else count)
            self._received += data
            deadline.spend(timeout if status == StatusCode.error_timeout else time.monotonic() - begun)
        elif waiting:
            self._received += self._read_waiting(waiting)

    def _stop_at(self, byte: int | None) -> None:
        """Let the library end a read at ``byte``."""
        from pyvisa.constants import ResourceAttribute

        if byte != self._stop:
            if byte is not None:
                self.resource.set_visa_attribute(ResourceAttribute.termchar, byte)
            self.resource.set_visa_attribute(ResourceAttribute.termchar_enabled, byte is not None)
            self._stop = byte

    def _read_waiting(self, count: int) -> bytes:
        """Return bytes that are there.

        They are not waited for. But a library counts the time, and if this process is not run for longer than the
        timeout in the middle of it, pyvisa-py reports one, and what it had taken is lost.
        """
        if count == 0:
            return b""
        self._set_timeout(_STARVED)
        return self._visa_read(count)

    def _read_whole_message(self) -> bytes:
        from pyvisa.constants import StatusCode

        message = bytearray()
        status = StatusCode.success_max_count_read
        while status == StatusCode.success_max_count_read:
            data, status = self._visa_read_status(_CHUNK)
            message += data
            _refuse_endless(message, "the end of a message")
        return bytes(message)

    def _visa_read(self, count: int) -> bytes:
        return self._visa_read_status(count)[0]

    def _visa_read_status(self, count: int) -> tuple[bytes, Any]:
        import pyvisa
        from pyvisa.constants import StatusCode

        try:
            data, status = self.resource.visalib.read(self.resource.session, count)
        except pyvisa.VisaIOError as error:
            if error.error_code != StatusCode.error_timeout:
                raise
            # Most libraries do not hand out what a read had taken when it timed out. The beginning of a message is of
            # no use: it would look like a complete message with a wrong end, although it was only late.
            return getattr(error, "received", b"") if self.stream else b"", StatusCode.error_timeout
        return bytes(data), status

    @property
    def _pending(self) -> bytes:
        # What pyvisa-py has taken from the socket and not handed out yet.
        session = self.resource.visalib.sessions[self.resource.session]
        pending: bytes = getattr(session, "_pending_buffer", b"")
        return pending

    def _set_timeout(self, timeout: float) -> None:
        if timeout != self._timeout:
            if self._keeps and self._kept is None:
                self._kept = self.resource.timeout
            self.resource.timeout = max(0, round(timeout * 1000))
            self._timeout = timeout

    def _clear(self) -> bool:
        import pyvisa

        try:
            self.resource.clear()
        except (NotImplementedError, pyvisa.VisaIOError):
            return False
        return True

    def _waiting(self) -> int | None:
        """Return how many bytes can be read without waiting; None if the interface cannot tell.

        Raises:
            ConnectionResetError: the other end has closed the connection, which pyvisa-py shows as mere silence.
        """
        if self._serial:
            return int(self.resource.bytes_in_buffer)
        if self._socket is None:
            return None
        waiting = len(self._pending)
        if select.select([self._socket], [], [], 0)[0]:
            there = len(self._socket.recv(_CHUNK, socket.MSG_PEEK))
            if not there and not waiting:
                raise ConnectionResetError("the other end has closed the connection")
            waiting += there
        return waiting


class _Budget:
    """Seconds that may still be waited; all of them again for each portion of a reply."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.left = total
        self._received = 0

    def spend(self, seconds: float) -> None:
        self.left -= seconds

    def earn(self, received: int) -> None:
        """Note that so many bytes of the reply have come."""
        self._received += received
        if self._received >= _PORTION:
            self._received, self.left = 0, self.total


def _socket_of(resource: Any) -> socket.socket | None:
    # pyvisa-py keeps the socket there; other libraries look after their connections themselves.
    session = getattr(resource.visalib, "sessions", {}).get(resource.session)
    interface = getattr(session, "interface", None)
    return interface if isinstance(interface, socket.socket) else None


def _send_at_once(resource: Any, line: socket.socket | None) -> None:
    """Switch Nagle's algorithm off: it delays a second small write by 40 ms."""
    import pyvisa
    from pyvisa.constants import ResourceAttribute

    if line is not None:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return
    with contextlib.suppress(pyvisa.VisaIOError):
        resource.set_visa_attribute(ResourceAttribute.tcpip_nodelay, True)


def _refuse_endless(received: bytearray, end: str) -> None:
    """Raise ValueError if so many bytes have come that an end is not expected any more."""
    if len(received) > _LONGEST_REPLY:
        raise ValueError(
            f"{end} was expected within {_LONGEST_REPLY} bytes, the longest reply that is read; got {len(received)} "
            f"bytes without it, beginning with {bytes(received[:80])!r}"
        )


def simulated_clock(library: Any) -> Any:
    """Return the clock of a VISA library if it is a simulation that has one, else None."""
    return getattr(getattr(library, "bench", None), "clock", None)


def _sleep(library: Any, seconds: float, check: Callable[[], None]) -> None:
    """Wait on the clock of the library if it is a simulation that has one."""
    clock = simulated_clock(library)
    wait = time.sleep if clock is None else clock.wait
    left = seconds
    while left > 0:
        check()
        wait(min(_SLICE, left))
        left -= _SLICE

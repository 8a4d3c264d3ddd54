"""A pyserial port that is a VISA session: for code that needs a ``serial.Serial`` although there is no real port.

A simulated instrument has no port of the operating system, and neither has one whose wire is recorded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pyvisa
import serial
from pyvisa.constants import BufferOperation, StatusCode

from catkit_devices._wire.byte_stream import simulated_clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VisaSerialPort"]

_FOREVER = 86400.0
"""Seconds for which a port whose timeout is None waits."""


class VisaSerialPort(serial.SerialBase):
    """A pyserial port on an opened VISA resource of a serial line.

    Reading, writing, waiting, and throwing away are those of the resource, whose settings (baud rate and so on) are the
    resource's own business, as are opening and closing it. There are no modem lines and no breaks: setting them has no
    effect.

    Args:
        resource: from pyvisa, opened, a serial one, that does not warn of VI_SUCCESS_MAX_CNT (``ignore_warning``).

    Raises:
        serial.SerialException: (from every operation) the connection is gone, or the port was closed.
        serial.SerialTimeoutException: something could not be written within ``write_timeout``.
    """

    def __init__(self, resource: Any) -> None:
        self._resource = resource
        clock = simulated_clock(resource.visalib)
        self._now: Callable[[], float] = time.monotonic if clock is None else clock.time
        super().__init__()
        self._port = self.portstr = self.name = str(resource.resource_name)
        self.is_open = True

    def open(self) -> None:
        """Make a port that was closed usable again."""
        self.is_open = True

    def close(self) -> None:
        """Refuse further use; the resource stays open."""
        self.is_open = False

    @property
    def in_waiting(self) -> int:
        """Number of bytes that can be read without waiting."""
        return int(self._do(lambda: self._resource.bytes_in_buffer))

    @property
    def out_waiting(self) -> int:
        """Number of bytes that were written and not sent: none, ever."""
        return 0

    def read(self, size: int = 1, /) -> bytes:
        """Return ``size`` bytes, or those that came within ``timeout`` seconds."""
        received = bytearray()
        left = _FOREVER if self.timeout is None else float(self.timeout)
        while len(received) < size:
            # A read that times out loses what it had, so only what is there already is asked for at once.
            wanted = min(self.in_waiting, size - len(received))
            if not wanted and left <= 0:
                break
            began = self._now()
            received += self._read(wanted or 1, left)
            left -= self._now() - began
        return bytes(received)

    def write(self, data: Any, /) -> int:
        """Send ``data``; return how many bytes that were."""
        content = bytes(data)

        def write() -> None:
            timeout = _FOREVER if self.write_timeout is None else float(self.write_timeout)
            self._resource.timeout = round(timeout * 1000)
            self._resource.write_raw(content)

        try:
            self._do(write)
        except TimeoutError as error:
            raise serial.SerialTimeoutException("Write timeout") from error
        return len(content)

    def flush(self) -> None:
        """Return at once: the bytes that were written are sent already."""
        self._do(lambda: None)

    def reset_input_buffer(self) -> None:
        """Throw away what has arrived."""
        self._do(lambda: self._resource.flush(BufferOperation.discard_read_buffer))

    def reset_output_buffer(self) -> None:
        """Do nothing: bytes that were written cannot be taken back."""

    def _read(self, count: int, timeout: float) -> bytes:
        def read() -> bytes:
            self._resource.timeout = max(round(timeout * 1000), 0)
            return bytes(self._resource.visalib.read(self._resource.session, count)[0])

        try:
            data: bytes = self._do(read)
        except TimeoutError:
            return b""
        return data

    def _do(self, operation: Callable[[], Any]) -> Any:
        if not self.is_open:
            raise serial.PortNotOpenError
        try:
            return operation()
        except pyvisa.VisaIOError as error:
            if error.error_code == StatusCode.error_timeout:
                raise TimeoutError(str(error)) from error
            raise serial.SerialException(str(error)) from error

    def _reconfigure_port(self) -> None:
        """Leave the resource's settings as they are."""

    def _update_break_state(self) -> None:
        """Do nothing: there is no such line."""

    def _update_rts_state(self) -> None:
        """Do nothing: there is no such line."""

    def _update_dtr_state(self) -> None:
        """Do nothing: there is no such line."""

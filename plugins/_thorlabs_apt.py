"""The frames of Thorlabs instruments that speak the APT protocol on USB: flip mounts, K-Cubes, T-Cubes.

An FTDI serial port at 115200 baud, 8N1, RTS/CTS. A short message is six bytes, ``id (2) parameter parameter destination
source``; a long one has a header ``id (2) length (2) destination|0x80 source`` and then its data; all little-endian.
The host is 0x01 and a unit with its own USB port 0x50. Frames have no checksum, so a disturbed byte is not detected.

Source: Thorlabs "APT Controllers Host-Controller Communications Protocol", issue 15 (2015), p. 9-26 (frames, addresses,
HW_REQ_INFO); PyPI thorlabs-apt-protocol 29.0.0 and pylablib ``devices/Thorlabs/kinesis.py`` have the same.
"""

from __future__ import annotations

import re
import struct
from typing import Any

from catkit_devices.errors import DeviceOpenError
from catkit_devices.visa import VisaDevice

__all__ = ["CHANNEL", "AptDevice"]

_HOST, _UNIT, _LONG = 0x01, 0x50, 0x80
"""Addresses of host and unit, and the bit of a destination that says that data follow."""
_REQ_INFO, _GET_INFO = 0x0005, 0x0006  # messages
CHANNEL = 1
"""The only channel of a unit with its own USB port."""


class AptDevice(VisaDevice):
    """A VisaDevice for the frames of APT; the regular expression ``identity`` must match the name of the model."""

    baud_rate = 115200
    flow_control = "rts_cts"

    def _identify(self) -> None:
        data = self._request(_REQ_INFO, _GET_INFO, "<4x8s72x", 0)
        model = data[0].rstrip(b"\0 ").decode("ascii", "replace")
        if not re.search(self.identity, model):
            raise DeviceOpenError(f"a model {self.identity!r} was expected, found {model!r}", **self._facts())

    def _order(self, message: int, parameter: int = 0, data: bytes | None = None, *, channel: int = CHANNEL) -> None:
        """Send a message that has no reply, for the channel: a short one, or one with ``data``."""
        if data is None:
            self._write_bytes(struct.pack("<HBBBB", message, channel, parameter, _UNIT, _HOST))
        else:
            self._write_bytes(struct.pack("<HHBB", message, len(data), _UNIT | _LONG, _HOST) + data)

    def _request(self, request: int, answer: int, layout: str, channel: int = CHANNEL) -> tuple[Any, ...]:
        """Send a short message, and return the data of its answer, unpacked with ``struct``."""
        frame = struct.pack("<HBBBB", request, channel, 0, _UNIT, _HOST)
        with self._exchange(frame):
            self._write_bytes(frame)
            header = self._read_bytes(6)
            expected = struct.pack("<HHBB", answer, struct.calcsize(layout), _HOST | _LONG, _UNIT)
            if header != expected:
                raise ValueError(f"a frame that begins with {expected.hex(' ')} was expected, got {header.hex(' ')}")
            return struct.unpack(layout, self._read_bytes(struct.calcsize(layout)))

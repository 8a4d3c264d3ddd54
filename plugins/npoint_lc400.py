"""nPoint LC400 piezo controller with a tip/tilt stage on its channels 1 and 2: driver ``npoint_lc400``.

Binary frames of 32-bit little-endian words that end with 0x55, on a virtual serial port at 115200 baud; no echo, no
prompt, and no errors on the wire. Frames: manufacturer's text quoted in a public MATLAB class ``Npoint``, and github
cnanders/matlab-npoint ``src/+npoint/LC400.m``; registers: the latter and github epics-motor/motorNPoint
``nPointApp/src/LC400MotorDriver.cpp``. The scale (full range is -524287 to +524287 counts): both.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DeviceOpenError, DeviceProtocolError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.interfaces import TipTilt
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["LC400"]

_READ, _WRITE, _READ_BLOCK, _END = 0xA0, 0xA2, 0xA4, 0x55
"""Bytes that begin a command, and the one that ends every frame."""
_READ_REPLIES = (_READ, _READ_BLOCK)  # github spacetelescope/catkit's parser takes either for a single word
_FIRMWARE = 0x11830028  # five words of text
_CHANNELS = {"tip": 1, "tilt": 2}
"""Channels of the controller to which the two axes of the stage are wired."""

# Offsets of a channel's registers.
_RANGE_UNIT, _RANGE, _SERVO, _WAVETABLE_ACTIVE, _COMMAND, _SENSOR = 0x044, 0x078, 0x084, 0x208, 0x218, 0x334

_MICRORADIANS = 2
"""Value of the register of the range's unit for a tilt axis in microradians."""
_FULL_SCALE = 1048574  # counts from end to end


def _commanded(axis: str) -> Control:
    return Control(
        lambda self: self._position(axis, _COMMAND),
        lambda self, position: self._command(axis, self._counts(axis, position)),
        unit="urad",
        limits=lambda self: (-self._ranges[axis] / 2, self._ranges[axis] / 2),
        doc=f"Commanded {axis}, from the middle of the range to half of it either way; written and read back.",
    )


def _measured(axis: str) -> Measurement:
    return Measurement(
        lambda self: self._position(axis, _SENSOR), unit="urad", doc=f"{axis.title()}, as the position sensor reads it."
    )


class LC400(VisaDevice, TipTilt):
    """A tip/tilt stage; it is safe when no wavetable moves it."""

    baud_rate = 115200

    tip = _commanded("tip")
    tilt = _commanded("tilt")
    measured_tip = _measured("tip")
    measured_tilt = _measured("tilt")

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._ranges = dict.fromkeys(_CHANNELS, 0.0)

    def move(self, tip: float, tilt: float) -> None:
        """Set tip and tilt, in µrad from the middle of their ranges; neither moves when one is out of range."""
        cls = type(self)
        targets = {
            "tip": self._counts("tip", cls.tip.check(self, tip)),
            "tilt": self._counts("tilt", cls.tilt.check(self, tilt)),
        }
        for axis, counts in targets.items():
            self._command(axis, counts)

    @property
    def closed_loop(self) -> bool:
        """Servo loop of both axes: closed, or (False) open in at least one."""
        return all(self._read_word(channel, _SERVO) == 1 for channel in _CHANNELS.values())

    @closed_loop.setter
    def closed_loop(self, value: bool) -> None:
        for channel in _CHANNELS.values():
            self._write_word(channel, _SERVO, int(bool(value)))

    def _identify(self) -> None:
        words = [self._read_address(_FIRMWARE + 4 * number) for number in range(5)]
        firmware = struct.pack("<5i", *words).rstrip(b"\0")
        if not firmware or not (firmware.isascii() and firmware.decode("ascii").isprintable()):
            raise DeviceOpenError(f"the firmware's name was expected, found {firmware!r}", **self._facts())
        for axis, channel in _CHANNELS.items():
            unit, full_range = self._read_word(channel, _RANGE_UNIT), self._read_word(channel, _RANGE)
            if unit != _MICRORADIANS or full_range <= 0:
                raise DeviceOpenError(
                    f"channel {channel} is not a tilt axis in microradians (register of the unit: {unit}, expected "
                    f"{_MICRORADIANS}; range: {full_range})",
                    **self._facts(),
                )
            self._ranges[axis] = float(full_range)

    def _counts(self, axis: str, position: float) -> int:
        """Return the nearest counts to a position; refused if rounding takes it over a limit that was narrowed."""
        counts = round(position / self._ranges[axis] * _FULL_SCALE)
        quantity: Control = getattr(type(self), axis)
        quantity.check(self, counts / _FULL_SCALE * self._ranges[axis])
        return counts

    def _position(self, axis: str, register: int) -> float:
        return self._read_word(_CHANNELS[axis], register) / _FULL_SCALE * self._ranges[axis]

    def _command(self, axis: str, counts: int) -> None:
        self._write_word(_CHANNELS[axis], _COMMAND, counts)

    def _read_word(self, channel: int, register: int) -> int:
        return self._read_address(0x11830000 + 0x1000 * channel + register)

    def _read_address(self, address: int) -> int:
        frame = struct.pack("<BIB", _READ, address, _END)
        with self._exchange(frame):
            self._write_bytes(frame)
            reply = self._read_bytes(10)
            head, found, word, end = struct.unpack("<BIiB", reply)
            if head not in _READ_REPLIES or found != address or end != _END:
                raise ValueError(f"the word at {address:#x} was expected, got {reply.hex(' ')}")
        return int(word)

    def _write_word(self, channel: int, register: int, word: int) -> None:
        frame = struct.pack("<BIiB", _WRITE, 0x11830000 + 0x1000 * channel + register, word, _END)
        with self._transaction():
            self._write_bytes(frame)
            found = self._read_word(channel, register)
        if found != word:
            raise DeviceProtocolError(f"{word} was written, but {found} was read back", **self._facts(frame))

    def _make_safe(self) -> None:
        """Stop the wavetables of both axes; the stage stays where it is."""
        for channel in _CHANNELS.values():
            self._write_word(channel, _WAVETABLE_ACTIVE, 0)


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"npoint_lc400": LC400}

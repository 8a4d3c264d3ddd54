r"""McPherson 747 device controller, for the slits and mirrors of a monochromator: driver ``mcpherson_747``.

RS-232 at 9600 baud, 8N1; Koyo DirectNET in ASCII: an enquiry, a header and data, each acknowledged, with a checksum
(the exclusive or of the characters). Frames and memory addresses: McPherson Model 747 manual p. 3-10. The bits of
V40601 tell which device moves; the manual numbers them from 16 on, and here any bit counts as motion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceProtocolError, DeviceTimeoutError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["DeviceController747"]

# Control characters (manual p. 4).
_SOH, _STX, _ETX, _EOT, _ENQ, _ACK, _ETB = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\x17"
_START, _STATE, _UNINITIALISED, _POSITION, _TARGET = 0o40600, 0o40601, 0o40602, 0o2240, 0o2250
"""Memory addresses; the positions and targets of devices 2 to 4 follow those of device 1, which are the last two."""
_ERROR = 0x100
"""Bit of the word at ``_START``."""
_LONGEST = 60.0
"""Seconds that a motion may take; the manual does not say how long one takes."""


if TYPE_CHECKING:
    _HasLine = VisaDevice
else:
    _HasLine = object


class _DirectNet(_HasLine):
    """Reading and writing words of the memory, for the controller and its parts."""

    def _read_word(self, place: int) -> int:
        with self._exchange(f"read V{place:o}"):
            self._ask_for(b"0", place)
            data = self._read_bytes(8)
            if data[:1] + data[5:6] != _STX + _ETX or data[6:] != _lrc(data[1:5]):
                raise ValueError(f"a word and its checksum were expected, got {data!r}")
            self._write_bytes(_ACK)
            self._expect(_EOT)
            self._write_bytes(_EOT)
        return int(data[1:3], 16) + 256 * int(data[3:5], 16)

    def _write_word(self, place: int, word: int) -> None:
        with self._exchange(f"write {word} to V{place:o}"):
            self._ask_for(b"8", place)
            data = f"{word & 0xFF:02X}{word >> 8:02X}".encode()
            self._write_bytes(_STX + data + _ETX + _lrc(data))
            self._expect(_ACK)
            self._write_bytes(_EOT)

    def _ask_for(self, direction: bytes, place: int) -> None:
        """Send the enquiry and the header for one word: no whole block, and a last block of four digits."""
        self._write_bytes(b"N!" + _ENQ)
        self._expect(b"N!" + _ACK)
        header = b"01" + direction + b"1" + f"{place + 1:04X}".encode() + b"00" + b"04" + b"01"
        self._write_bytes(_SOH + header + _ETB + _lrc(header))
        self._expect(_ACK)

    def _expect(self, answer: bytes) -> None:
        if (found := self._read_bytes(len(answer))) != answer:
            raise ValueError(f"{answer!r} was expected, got {found!r}")


class Part(_DirectNet, Component):  # type: ignore[misc]  # a component finds these methods in its device
    """One slit, mirror or filter, which has numbered positions."""

    position = Control(
        lambda self: self._read_word(_POSITION + self.number - 1),
        lambda self, position: self._move(position),
        type=int,
        limits=(1, 9),
        shared=True,
        doc="Position. Setting it returns on arrival. One that does not exist is refused; then call initialise().",
    )
    initialised = Measurement(
        lambda self: not self._read_word(_UNINITIALISED) >> (self.number - 1) & 1,
        type=bool,
        shared=True,
        doc="State: initialised since power-up or not; if not, the position means nothing.",
    )

    def initialise(self) -> None:
        """Find the first position, as is needed after power-up and after an error; returns when it is there."""
        self._write_word(_START, 1 << (self.number - 1))
        self._come_to_rest()
        if not self.initialised:
            raise DeviceProtocolError(f"device {self.number} was not initialised", **self._facts())

    def _move(self, position: int) -> None:
        if not self.initialised:
            raise DeviceProtocolError(f"device {self.number} must be initialised first: initialise()", **self._facts())
        self._write_word(_TARGET + self.number - 1, position)
        self._come_to_rest()
        found = self._read_word(_POSITION + self.number - 1)
        if self._read_word(_START) & _ERROR or found != position:
            raise DeviceProtocolError(
                f"device {self.number} did not go to {position}: it is at {found}", **self._facts()
            )

    def _come_to_rest(self) -> None:
        if not self.wait(lambda: self._read_word(_STATE) == 0, _LONGEST, 0.2):
            raise DeviceTimeoutError(f"still moving after {_LONGEST:g} s", **self._facts())


class DeviceController747(_DirectNet, VisaDevice):
    """Up to four parts of a monochromator with numbered positions; making it safe does nothing."""

    parts = Components(Part, numbers=(1, 2, 3, 4))

    def _identify(self) -> None:
        self._read_word(_UNINITIALISED)  # it has no command for its identity; a good answer must do


def _lrc(text: bytes) -> bytes:
    check = 0
    for byte in text:
        check ^= byte
    return f"{check:02X}".encode()


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"mcpherson_747": DeviceController747}

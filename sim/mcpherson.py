r"""Simulated McPherson controllers: scan controller 789A-4, device controller 747.

Sources: McPherson Model 789A-4 manual p. 7-18, Model 747 manual p. 3-10; github spacetelescope/catkit
``catkit/hardware/mcpherson/scan_controller_789a4.py`` and ``device_driver_747.py``.

789A-4: a command ends with CR and is echoed, with its value if it has one, and CR LF. SPACE starts it: the sign-on, and
``#`` later. Motions have no ramps; the home switch is touched below 0 while the home circuit is on; limit switches
stop motions. Assumed: an unknown command is echoed and has no effect.

747: DirectNET in ASCII. Enquiry, header and data are acknowledged, and answered with NAK if they are wrong. One device
moves at a time; a target beyond its positions sets the error bit. Assumed: a device takes 2 s for each position, and
3 s to be initialised; bit 0 of V40601 says that any device moves, and bits 1 to 4 are for devices 1 to 4.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import MotorAxis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.simulation import Bench

__all__ = ["DeviceController747", "ScanController789A4"]

_END = 4000000
"""Steps from the home switch to the upper limit switch; the lower one is on the other side, at a tenth of that."""


class ScanController789A4:
    """The simulator ``mcpherson_789a4``.

    Args:
        bench: the simulated bench that it is part of.
        position: steps from the edge of the home switch, at the start.

    Attributes:
        axis: its true position, in steps from the edge of the home switch.
    """

    def __init__(self, bench: Bench, *, position: int = 50000) -> None:
        self.bench = bench
        self.axis = MotorAxis(bench.clock, position)
        self.home_circuit = 0
        self._started = False
        self._parameters = {"K": 50, "I": 1000, "V": 60000}
        self._received = ""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies."""
        self._received += data.decode("latin-1")
        replies = []
        while self._received:
            if self._received[0] == "\3":
                self.axis.stop()
                self._received = self._received[1:]
            elif "\r" in self._received:
                line, _end, self._received = self._received.partition("\r")
                replies.append(self._execute(line))
            else:
                break
        return "".join(replies).encode("latin-1")

    def _execute(self, line: str) -> str:
        if line.strip() == "":
            started, self._started = self._started, True
            return " #\r\n" if started else " v2.55\r\n"
        return f"{line}{self._value(line)}\r\n"

    def _value(self, line: str) -> str:
        if found := re.fullmatch(r"([+-]\d+)", line):
            self._go(self.axis.position() + int(found[1]), self._parameters["V"])
        elif found := re.fullmatch(r"M([+-]\d+)", line):
            speed = int(found[1])
            self._go(_END if speed > 0 else -_END, abs(speed))
        elif found := re.fullmatch(r"F(\d+),0", line):
            self._go(0.0, int(found[1]))
        elif found := re.fullmatch(r"A(0|8|24)", line):
            self.home_circuit = int(found[1])
        elif found := re.fullmatch(r"([KIV]) ?(\d+)", line):
            self._parameters[found[1]] = int(found[2])
        return self._answer(line)

    def _answer(self, line: str) -> str:
        if line == "@":
            self.axis.stop()
        elif line == "X":
            return " " + " ".join(f"{name}= {value}" for name, value in self._parameters.items())
        elif line == "^":
            return f" {self.axis.moving:d}"
        elif line == "]":
            at = self.axis.position()
            bits = (64 if at >= _END else 0) | (128 if at <= -_END / 10 else 0)
            return f" {bits | (32 if self.home_circuit and at < 0 else 0)}"
        return ""

    def _go(self, target: float, speed: float) -> None:
        self.axis.go(min(max(target, -_END / 10), _END), max(speed, 1))


# Control characters (McPherson Model 747 manual p. 4).
_SOH, _STX, _ETX, _EOT, _ENQ, _ACK, _NAK, _ETB = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\x15", b"\x17"
_ENQUIRY = b"N!" + _ENQ
"""How the host begins: address and enquiry."""
_START, _STATE, _UNINITIALISED, _POSITION, _TARGET = 0o40600, 0o40601, 0o40602, 0o2240, 0o2250
"""Memory addresses."""
_ERROR = 0x100
"""Bit of the word at the first of these addresses."""
_STEP, _INITIALISING = 2.0, 3.0  # seconds


class DeviceController747:
    """The simulator ``mcpherson_747``.

    Args:
        bench: the simulated bench that it is part of.
        positions: how many positions devices 1 to 4 have.
        initialised: whether they were initialised already.

    Attributes:
        axes: true positions of the devices, counted from 1.
    """

    def __init__(self, bench: Bench, *, positions: Sequence[int] = (2, 2, 6, 6), initialised: bool = False) -> None:
        self.axes = [MotorAxis(bench.clock, 1.0) for _ in positions]
        self._positions = positions
        self._initialised = [initialised] * len(self.axes)
        self._error = False
        self._targets = [1] * len(self.axes)
        self._received = b""
        self._place: int | None = None
        """Address at which the next data are written."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies."""
        self._received += data
        reply = b""
        while self._received:
            taken = self._take(self._received)
            if taken is None:
                break
            length, answer = taken
            self._received = self._received[length:]
            reply += answer
        return reply

    def _take(self, data: bytes) -> tuple[int, bytes] | None:
        """Return how many bytes were understood, and the answer; None if more bytes are needed."""
        if data.startswith(_ENQUIRY[: len(data)]):
            return (3, b"N!" + _ACK) if len(data) >= 3 else None
        if data[:1] == _SOH:
            return (18, self._header(data[1:15], data[15:16], data[16:18])) if len(data) >= 18 else None
        if data[:1] == _STX:
            return (8, self._data(data[1:5], data[5:6], data[6:8])) if len(data) >= 8 else None
        return 1, _EOT if data[:1] == _ACK else b""

    def _header(self, text: bytes, end: bytes, check: bytes) -> bytes:
        found = re.fullmatch(rb"01([08])1([0-9A-F]{4})000401", text)
        if found is None or end != _ETB or check != _lrc(text):
            return _NAK
        place = int(found[2], 16) - 1
        if found[1] == b"8":
            self._place = place
            return _ACK
        word = self._read(place)
        data = f"{word & 0xFF:02X}{word >> 8:02X}".encode()
        return _ACK + _STX + data + _ETX + _lrc(data)

    def _data(self, text: bytes, end: bytes, check: bytes) -> bytes:
        if self._place is None or end != _ETX or check != _lrc(text) or not re.fullmatch(rb"[0-9A-F]{4}", text):
            return _NAK
        self._write(self._place, int.from_bytes(bytes.fromhex(text.decode()), "little"))
        self._place = None
        return _ACK

    def _read(self, place: int) -> int:
        moving = [axis.moving for axis in self.axes]
        if place == _START:
            return _ERROR if self._error else 0
        if place == _STATE:
            return any(moving) + sum(2 << number for number, one in enumerate(moving) if one)
        if place == _UNINITIALISED:
            return sum(1 << number for number, one in enumerate(self._initialised) if not one)
        if place in range(_POSITION, _POSITION + len(self.axes)):
            return round(self.axes[place - _POSITION].position())
        if place in range(_TARGET, _TARGET + len(self.axes)):
            return self._targets[place - _TARGET]
        return 0

    def _write(self, place: int, word: int) -> None:
        if any(axis.moving for axis in self.axes):
            return
        if place == _START:
            for number, axis in enumerate(self.axes):
                if word >> number & 1:
                    self._initialised[number], self._error = True, False
                    axis.go(1.0, max(abs(axis.position() - 1.0), 1e-3) / _INITIALISING)
        elif place in range(_TARGET, _TARGET + len(self.axes)):
            number = place - _TARGET
            if not self._initialised[number] or not 1 <= word <= self._positions[number]:
                self._error, self._initialised[number] = True, False
                return
            self._targets[number] = word
            self.axes[number].go(float(word), 1 / _STEP)


def _lrc(text: bytes) -> bytes:
    check = 0
    for byte in text:
        check ^= byte
    return f"{check:02X}".encode()


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulators."""
    return {"mcpherson_747": DeviceController747, "mcpherson_789a4": ScanController789A4}

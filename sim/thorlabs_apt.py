"""Simulated Thorlabs units that speak the APT protocol: the flip mount MFF101 and the motor controller KDC101.

Sources: Thorlabs "APT Controllers Host-Controller Communications Protocol" (frames, messages, status bits, layout of
the data); pylablib ``devices/Thorlabs/kinesis.py``; PyPI thorlabs-apt-protocol 29.0.0; github delmic/odemis
``src/odemis/driver/tlaptmf.py`` (how an MFF101 behaves); github spacetelescope/catkit
``catkit/hardware/thorlabs/ThorlabsMFF101.py``, whose frames for the address 0x21 real mounts obey too.

* Short messages have six bytes, long ones a header of six bytes and data, little-endian. A unit accepts messages to
  0x50, 0x11 and 0x21, and answers as 0x50. It does not answer messages that it does not know.
* HW_REQ_INFO, MOD_IDENTIFY, the channel's enable state, status bits and status update.
* MFF101: MOT_MOVE_JOG to position 1 or 2; until it has arrived, the status has a moving bit and neither position; it
  sends no message when it has arrived. MFF_OPERPARAMS.
* KDC101: MOT_MOVE_ABSOLUTE, RELATIVE, HOME, STOP, position counter, velocity parameters, DC status update. When a
  motion ends, it sends MOVE_COMPLETED, MOVE_HOMED or MOVE_STOPPED, unless these messages were suspended.

Assumed: motions have no ramps; switching on leaves the counter of an unhomed stage at 0 wherever it is; a motion beyond
the end of the travel ends at the limit switch, whose bit it sets. The stream of updates (HW_START_UPDATEMSGS), jogging
of the KDC101 and its front panel are not simulated.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import MotorAxis
from catkit_devices.simulation import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation import Bench

__all__ = ["KDC101", "MFF101"]

_HOST, _UNIT, _LONG = 0x01, 0x50, 0x80
"""Addresses of host and unit, and the bit of a destination that says that data follow."""
_HEARS = {0x50, 0x11, 0x21}
"""Addresses at which a unit accepts messages: of a unit, of the controller of a rack, of its first bay."""
_CHANNEL = 1
"""The only channel."""

# Status bits.
_FORWARD_LIMIT, _REVERSE_LIMIT, _MOVING_FORWARD, _MOVING_REVERSE = 0x01, 0x02, 0x10, 0x20
_CONNECTED, _HOMING, _HOMED, _ENABLED = 0x100, 0x200, 0x400, 0x80000000

_POSITIONS = {1, 2}
"""The positions of a flip mount."""


class _AptUnit:
    """The common part of the units: frames, identity, status."""

    model: ClassVar[bytes]
    serial_number: ClassVar[int]

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._received = b""
        self._outbox = Outbox(bench.clock)
        self._enabled = True
        self._messages: dict[int, Callable[[int, int, bytes], None]] = {
            0x0005: self._info,
            0x0210: self._set_enabled,
            0x0211: lambda _one, _two, _data: self._short(0x0212, _CHANNEL, 1 if self._enabled else 2),
            0x0429: lambda _one, _two, _data: self._long(0x042A, "<HI", _CHANNEL, self.bits()),
            0x0480: lambda _one, _two, _data: self._long(
                0x0481, "<HiiI", _CHANNEL, self.counts(), self.counts(), self.bits()
            ),
        }

    def bits(self) -> int:
        """Return the status bits."""
        raise NotImplementedError

    def counts(self) -> int:
        """Return the position."""
        return 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the frames that are due."""
        self._received += data
        while len(self._received) >= 6:
            message, one, two, destination, _source = struct.unpack_from("<HBBBB", self._received)
            length = 6 + (one + 256 * two if destination & _LONG else 0)
            if len(self._received) < length:
                break
            frame, self._received = self._received[:length], self._received[length:]
            if destination & ~_LONG in _HEARS and message in self._messages:
                self._messages[message](one, two, frame[6:])
        return self._outbox.take()

    def clear(self) -> None:
        """Discard a half-received frame and unread frames."""
        self._received = b""
        self._outbox.clear()

    def _short(self, message: int, one: int, two: int) -> None:
        self._outbox.put(struct.pack("<HBBBB", message, one, two, _HOST, _UNIT))

    def _long(self, message: int, layout: str, *values: int | bytes) -> None:
        data = struct.pack(layout, *values)
        self._outbox.put(struct.pack("<HHBB", message, len(data), _HOST | _LONG, _UNIT) + data)

    def _info(self, _one: int, _two: int, _data: bytes) -> None:
        firmware = (3, 0, 1, 0)  # minor, interim, major
        self._long(0x0006, "<I8sH4B60sHHH", self.serial_number, self.model, 16, *firmware, b"simulated", 1, 1, 1)

    def _set_enabled(self, _one: int, two: int, _data: bytes) -> None:
        self._enabled = two == 1


class MFF101(_AptUnit):
    """The simulator ``thorlabs_mff101``.

    Args:
        bench: the bench to which it belongs.
        position: 1 or 2, at the start.
        blocked: whether it never reaches the position to which it moves.

    Attributes:
        position: where it is, or to where it is moving.
    """

    model = b"MFF101"
    serial_number = 37000001

    def __init__(self, bench: Bench, *, position: int = 1, blocked: bool = False) -> None:
        super().__init__(bench)
        self.position = position
        self.blocked = blocked
        self._arrival = -1.0
        self._parameters = [500, int(1e7 * 500**-1.591), 1, 1, 200, 3, 0x10, 200]
        self._messages |= {
            0x046A: self._jog,
            0x0510: self._set_parameters,
            0x0511: lambda _one, _two, _data: self._long(0x0512, "<HiiHHiHHi8x", _CHANNEL, *self._parameters),
        }

    def bits(self) -> int:
        """Return the status bits."""
        bits = _CONNECTED | (_ENABLED if self._enabled else 0)
        if self.bench.clock.time() < self._arrival:
            return bits | _MOVING_FORWARD
        return bits if self.blocked and self._arrival >= 0 else bits | self.position

    def _jog(self, _one: int, two: int, _data: bytes) -> None:
        if two in _POSITIONS and two != self.position:
            self.position = two
            self._arrival = self.bench.clock.time() + self._parameters[0] / 1000

    def _set_parameters(self, _one: int, _two: int, data: bytes) -> None:
        if len(data) == 34:
            _channel, *parameters = struct.unpack("<HiiHHiHHi8x", data)
            if 300 <= parameters[0] <= 2800:
                self._parameters = parameters


class KDC101(_AptUnit):
    """The simulator ``thorlabs_kdc101``: a stage with 34554.96 counts for each millimetre.

    Args:
        bench: the bench to which it belongs.
        homed: whether it was homed already.
        travel: mm, from home to the other end.
        position: mm from home, at the start.

    Attributes:
        axis: its true position, in counts from home.
    """

    model = b"KDC101"
    serial_number = 27000001
    _counts_per_mm: ClassVar[float] = 34554.96
    _velocity_unit: ClassVar[float] = 2048 / 6e6 * 65536
    _acceleration_unit: ClassVar[float] = (2048 / 6e6) ** 2 * 65536

    def __init__(self, bench: Bench, *, homed: bool = False, travel: float = 25.0, position: float = 5.0) -> None:
        super().__init__(bench)
        self._end = travel * self._counts_per_mm
        self.axis = MotorAxis(bench.clock, position * self._counts_per_mm)
        self._homed = homed
        self._homing = False
        self._zero = 0.0 if homed else self.axis.position()
        self._speed = [0, self._in_units(2.0, self._acceleration_unit), self._in_units(2.0, self._velocity_unit)]
        self._ending: int | None = None
        """The message to send when the present motion has ended; None at rest."""
        self._suspended = False
        self._messages |= {
            0x0410: self._set_counter,
            0x0411: lambda _one, _two, _data: self._long(0x0412, "<Hi", _CHANNEL, self.counts()),
            0x0413: self._set_velocity,
            0x0414: lambda _one, _two, _data: self._long(0x0415, "<Hiii", _CHANNEL, *self._speed),
            0x0443: self._home,
            0x0448: lambda _one, _two, data: self._go(data, self.axis.position()),
            0x0453: lambda _one, _two, data: self._go(data, self._zero),
            0x0465: self._stop,
            0x046B: lambda _one, _two, _data: self._suspend(True),
            0x046C: lambda _one, _two, _data: self._suspend(False),
            0x0490: lambda _one, _two, _data: self._tell(0x0491),
        }

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the frames that are due."""
        self._end_motion()
        return super().feed(data)

    def counts(self) -> int:
        """Return the value of the position counter."""
        return round(self.axis.position() - self._zero)

    def bits(self) -> int:
        """Return the status bits."""
        self._end_motion()
        bits = _CONNECTED | (_ENABLED if self._enabled else 0) | (_HOMED if self._homed else 0)
        if self.axis.moving:
            forward = self.axis.target > self.axis.position()
            return bits | (_MOVING_FORWARD if forward else _MOVING_REVERSE) | (_HOMING if self._homing else 0)
        at = self.axis.position()
        return bits | (_FORWARD_LIMIT if at >= self._end else 0) | (_REVERSE_LIMIT if at <= 0 else 0)

    def _in_units(self, value: float, unit: float) -> int:
        return round(value * self._counts_per_mm * unit)

    def _tell(self, message: int) -> None:
        velocity = self._speed[2] // 256 & 0x7FFF if self.axis.moving else 0
        self._long(message, "<HihHI", _CHANNEL, self.counts(), velocity, 0, self.bits())

    def _start(self, target: float, counts_per_second: float, ending: int) -> None:
        self.axis.go(min(max(target, 0.0), self._end), max(counts_per_second, 1.0))
        self._ending = ending

    def _end_motion(self) -> None:
        if self._ending is None or self.axis.moving:
            return
        ending, self._ending = self._ending, None
        if self._homing:
            self._homing, self._homed, self._zero = False, ending == 0x0444 or self._homed, 0.0
        if not self._suspended:
            if ending == 0x0444:
                self._short(ending, _CHANNEL, 0)
            else:
                self._tell(ending)

    def _go(self, data: bytes, origin: float) -> None:
        if len(data) == 6 and self._enabled:
            (distance,) = struct.unpack("<2xi", data)
            self._homing = False
            self._start(origin + distance, self._speed[2] / self._velocity_unit, 0x0464)

    def _home(self, _one: int, _two: int, _data: bytes) -> None:
        self._homing, self._homed = True, False
        self._start(0.0, 1.0 * self._counts_per_mm, 0x0444)

    def _stop(self, _one: int, _two: int, _data: bytes) -> None:
        if self.axis.moving:
            self.axis.stop()
            self._homing = False
            self._ending = 0x0466

    def _suspend(self, suspended: bool) -> None:
        self._suspended = suspended

    def _set_counter(self, _one: int, _two: int, data: bytes) -> None:
        if len(data) == 6:
            self._zero = self.axis.position() - struct.unpack("<2xi", data)[0]

    def _set_velocity(self, _one: int, _two: int, data: bytes) -> None:
        if len(data) == 14:
            _channel, *self._speed = struct.unpack("<Hiii", data)


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulators."""
    return {"thorlabs_kdc101": KDC101, "thorlabs_mff101": MFF101}

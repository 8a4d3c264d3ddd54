"""Thorlabs MFF101 and MFF102 motorized flip mounts: driver ``thorlabs_mff101``.

The frames are those of :mod:`catkit_devices.plugins._thorlabs_apt`. Messages and status bits: Thorlabs "APT Controllers
Host-Controller Communications Protocol" (MOT_MOVE_JOG, MOT_REQ_STATUSBITS, MOT_SET_MFF_OPERPARAMS). The bits of the
positions, the range of the transit time and its ADC value: pylablib ``devices/Thorlabs/kinesis.py``. The mount sends no
message when it has arrived; until then its status has a moving bit and neither position: github delmic/odemis
``src/odemis/driver/tlaptmf.py``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from catkit_devices.errors import DeviceProtocolError, DeviceTimeoutError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement

from ._thorlabs_apt import CHANNEL, AptDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["MFF101"]

# Messages, by their names in the protocol.
_MOVE_JOG, _REQ_STATUSBITS, _GET_STATUSBITS = 0x046A, 0x0429, 0x042A
_SET_OPERPARAMS, _REQ_OPERPARAMS, _GET_OPERPARAMS = 0x0510, 0x0511, 0x0512

_OPERPARAMS = "<HiiHHiHHi8x"
"""Channel, transit time in ms and its ADC value; mode, signal and pulse of either connector; reserved."""
_POSITION, _MOVING = 0x3, 0x2F0
"""Status bits: of the two positions (with the values 1 and 2); of motion, jogging and homing."""
_ARRIVAL = 5.0
"""Seconds that a flip may take; the longest transit time is 2.8 s."""


class MFF101(AptDevice):
    """A mirror or filter that is in one of two positions. It is safe in both, so making it safe does nothing."""

    identity = r"MFF10[12]"

    position = Control(
        lambda self: self._position(),
        lambda self, position: self._flip(position),
        type=int,
        limits=(1, 2),
        doc="Position, 1 or 2. Setting it returns when the mount has arrived; reading it waits for the end of a flip.",
    )
    moving = Measurement(
        lambda self: bool(self._status() & _MOVING),
        type=bool,
        shared=True,
        doc="Motion: whether the mount is flipping.",
    )
    transit_time = Control(
        lambda self: self._parameters()[1] / 1000,
        lambda self, seconds: self._set_transit_time(round(1000 * seconds)),
        unit="s",
        limits=(0.3, 2.8),
        doc="Time that a flip takes, in steps of 1 ms.",
    )

    def _status(self) -> int:
        channel, bits = self._request(_REQ_STATUSBITS, _GET_STATUSBITS, "<HI")
        if channel != CHANNEL:
            raise DeviceProtocolError(f"the status of channel {CHANNEL} was expected, got {channel}", **self._facts())
        return int(bits)

    def _position(self) -> int:
        if not self.wait(lambda: not self._status() & _MOVING, _ARRIVAL):
            raise DeviceTimeoutError(f"still moving after {_ARRIVAL:g} s", **self._facts())
        position = self._status() & _POSITION
        if position not in (1, 2):
            raise DeviceProtocolError("is in neither position: blocked, or moved by hand", **self._facts())
        return position

    def _flip(self, position: int) -> None:
        self._order(_MOVE_JOG, position)
        if not self.wait(lambda: self._status() & (_POSITION | _MOVING) == position, _ARRIVAL):
            raise DeviceTimeoutError(f"not at position {position} after {_ARRIVAL:g} s", **self._facts())

    def _parameters(self) -> tuple[int, ...]:
        return self._request(_REQ_OPERPARAMS, _GET_OPERPARAMS, _OPERPARAMS)

    def _set_transit_time(self, milliseconds: int) -> None:
        with self._transaction():
            channel, _, _, *others = self._parameters()
            adc = int(1e7 * milliseconds**-1.591)
            self._order(_SET_OPERPARAMS, data=struct.pack(_OPERPARAMS, channel, milliseconds, adc, *others))
            found = self._parameters()[1]
        if found != milliseconds:
            raise DeviceProtocolError(
                f"a transit time of {milliseconds} ms was set, but {found} ms was read back", **self._facts()
            )


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"thorlabs_mff101": MFF101}

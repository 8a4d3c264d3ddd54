"""Thorlabs KDC101 K-Cube and TDC001 T-Cube, controllers of one DC servo motor: driver ``thorlabs_kdc101``.

The frames are those of :mod:`catkit_devices.plugins._thorlabs_apt`. Messages and status bits: Thorlabs "APT Controllers
Host-Controller Communications Protocol" (MOT_MOVE_ABSOLUTE, MOT_MOVE_HOME, MOT_MOVE_STOP, MOT_REQ_DCSTATUSUPDATE,
MOT_SET_VELPARAMS, MOT_SUSPEND_ENDOFMOVEMSGS) and PyPI thorlabs-apt-protocol 29.0.0. Units of velocity (2048/6e6 s,
1/65536): the same. Encoder counts of the stages (MTS25-Z8, MTS50-Z8, Z8xx): 512 counts for each turn of a motor with a
gear of 67.49 to 1, as public drivers have it that name the protocol's issue of 28 November 2022; we have not seen that
issue. Issue 15 of 2015 has 34304 for a gear of 67 to 1. The difference is 0.7 %: compare a long motion with a ruler.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, DeviceProtocolError, DeviceTimeoutError, nearest
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement

from ._thorlabs_apt import CHANNEL, AptDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["KDC101"]

# Messages, by their names in the protocol.
_MOVE_HOME, _MOVE_ABSOLUTE, _MOVE_STOP, _SUSPEND_ENDOFMOVEMSGS = 0x0443, 0x0453, 0x0465, 0x046B
_SET_VELPARAMS, _REQ_VELPARAMS, _GET_VELPARAMS = 0x0413, 0x0414, 0x0415
_REQ_DCSTATUSUPDATE, _GET_DCSTATUSUPDATE = 0x0490, 0x0491

_AT_ONCE = 1
"""Parameter of the stop message: stop at once, without a ramp."""
_MOVING, _HOMED = 0x2F0, 0x400
"""Status bits: of motion, jogging and homing; of a stage that has been homed since it was switched on."""
_TRAVEL = {"Z806": 6.0, "Z812": 12.0, "Z825": 25.0, "MTS25-Z8": 25.0, "MTS50-Z8": 50.0}
"""Travel in millimetres, by stage; all have the same encoder and gear."""
_COUNTS = 34554.96  # per millimetre: 512 for each turn of the motor, a gear of 67.49 to 1, a thread of 1 mm
_VELOCITY = _COUNTS * 2048 / 6e6 * 65536
"""The value in the protocol for 1 mm/s."""
_LOOKS = 3
"""Number of status messages in a row without motion after which a motion has ended: it may begin with a delay."""
_TOLERANCE = 100
"""Counts (3 µm) by which a servo motor may miss its target."""
_INTERVAL = 0.1  # seconds between two status messages
_HOMING = 120.0
"""Seconds that homing may take: 50 mm at 1 mm/s, the default of the units, and about as much again in reserve."""


class KDC101(AptDevice):
    """A linear stage on a DC servo motor; it is safe when it does not move.

    Args:
        name: the device's name.
        stage: the connected stage: ``"Z806"``, ``"Z812"``, ``"Z825"``, ``"MTS25-Z8"`` or ``"MTS50-Z8"``.
        **options: of :class:`~catkit_devices.visa.VisaDevice`.
    """

    identity = r"[KT]DC[01]01"

    position = Control(
        lambda self: self._status()[0] / _COUNTS,
        lambda self, position: self._move(round(position * _COUNTS)),
        unit="mm",
        limits=lambda self: (0.0, self._travel),
        shared=True,
        doc="Position of the stage from its home. Setting it returns when the homed stage has arrived.",
    )
    moving = Measurement(
        lambda self: bool(self._status()[1] & _MOVING), type=bool, shared=True, doc="Motion: whether the stage moves."
    )
    homed = Measurement(
        lambda self: bool(self._status()[1] & _HOMED),
        type=bool,
        shared=True,
        doc="Homing: whether the stage was homed since the unit was switched on.",
    )
    velocity = Control(
        lambda self: self._velocity(),
        lambda self, velocity: self._set_velocity(velocity),
        unit="mm/s",
        limits=(0.01, 2.4),
        doc="Velocity of motions, up to the highest one of the slowest of these stages.",
    )

    def __init__(self, name: str, *, stage: str = "Z825", **options: Any) -> None:
        super().__init__(name, **options)
        if stage not in _TRAVEL:
            raise ConfigurationError(
                f"stage must be one of {', '.join(_TRAVEL)}, got {stage!r}",
                key=f"devices.{name}.stage",
                suggestion=nearest(str(stage), _TRAVEL),
            )
        self._travel = _TRAVEL[stage]

    def home(self) -> None:
        """Move to the home switch, which is position 0 then; returns when the stage is there."""
        self._order(_MOVE_HOME)
        self._come_to_rest(_HOMING)
        if not self._status()[1] & _HOMED:
            raise DeviceProtocolError("homing ended, but the home switch was not found", **self._facts())

    def stop(self) -> None:
        """Stop at once; returns when it is at rest."""
        self._order(_MOVE_STOP, _AT_ONCE)
        self._come_to_rest(self.io_timeout)

    def _identify(self) -> None:
        super()._identify()
        # A message at the end of a motion could come between a query and its answer. The status is asked for instead.
        self._order(_SUSPEND_ENDOFMOVEMSGS, channel=0)

    def _status(self) -> tuple[int, int]:
        """Return position, in counts, and status bits."""
        channel, position, _velocity, bits = self._request(_REQ_DCSTATUSUPDATE, _GET_DCSTATUSUPDATE, "<Hih2xI")
        if channel != CHANNEL:
            raise DeviceProtocolError(f"the status of channel {CHANNEL} was expected, got {channel}", **self._facts())
        return position, bits

    def _move(self, target: int) -> None:
        start, bits = self._status()
        if not bits & _HOMED:
            raise DeviceProtocolError("must be homed before it is moved: home()", **self._facts())
        self._order(_MOVE_ABSOLUTE, data=struct.pack("<Hi", CHANNEL, target))
        self._come_to_rest(10.0 + 2 * abs(target - start) / _COUNTS / self._velocity())
        found = self._status()[0]
        if abs(found - target) > _TOLERANCE:
            raise DeviceProtocolError(
                f"stopped at {found / _COUNTS:.4f} mm, before its target {target / _COUNTS:.4f} mm", **self._facts()
            )

    def _come_to_rest(self, timeout: float) -> None:
        looks = [False] * _LOOKS

        def at_rest() -> bool:
            looks[:] = [*looks[1:], not self._status()[1] & _MOVING]
            return all(looks)

        if not self.wait(at_rest, timeout, _INTERVAL):
            raise DeviceTimeoutError(f"still moving after {timeout:.0f} s", **self._facts())

    def _velocity(self) -> float:
        return float(self._request(_REQ_VELPARAMS, _GET_VELPARAMS, "<Hiii")[3] / _VELOCITY)

    def _set_velocity(self, velocity: float) -> None:
        wanted = round(velocity * _VELOCITY)
        with self._transaction():
            channel, least, acceleration, _ = self._request(_REQ_VELPARAMS, _GET_VELPARAMS, "<Hiii")
            self._order(_SET_VELPARAMS, data=struct.pack("<Hiii", channel, least, acceleration, wanted))
            found = self._request(_REQ_VELPARAMS, _GET_VELPARAMS, "<Hiii")[3]
        if found != wanted:
            raise DeviceProtocolError(
                f"{velocity:g} mm/s was set, but {found / _VELOCITY:g} mm/s was read back", **self._facts()
            )

    def _make_safe(self) -> None:
        """Stop the motor at once."""
        self._order(_MOVE_STOP, _AT_ONCE)
        self._come_to_rest(self.io_timeout)


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"thorlabs_kdc101": KDC101}

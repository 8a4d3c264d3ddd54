"""Newport XPS-Q8 motion controller, and others of its family (XPS-C8, XPS-D): driver ``newport_xps_q8``.

Functions: Newport XPS-Q8 User's Manual and Programmer's Manual (TCP/IP), PyPI newportxps ``XPS_C8_drivers.py``. That a
positioner can be moved by its own name, and that homing ends by a kill only: github epics-motor/motorNewport
``XPSAxis.cpp``. Group states: github nasa-jpl/golaborate ``newport/xps.go``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceProtocolError, DeviceTimeoutError, DeviceValueError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Array, Control, Measurement

from ._newport_xps import XpsController, go

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.device import Device

__all__ = ["XpsQ8"]

# States of a group.
_NOT_INITIALISED = frozenset({*range(10), 50, 63, 66, 67, 71, 72, 83, 106})
_READY = frozenset({*range(10, 20), 70, 77})
_NOT_REFERENCED = 42
_AT_REST = _NOT_INITIALISED | _READY | {_NOT_REFERENCED, *range(20, 39), 74, 75, 76}  # disabled from 20 on
_ENDED_BY_ABORT = frozenset({44, 45, 47})  # moving, on a trajectory, jogging

_LEAST = 1e-6
"""Lowest velocity and acceleration, since the controller wants them above zero."""
_RESERVE = 10.0
"""Seconds that a motion may take in addition to what follows from its velocity and acceleration."""
_HOMING = 180.0
"""Seconds that initialising or homing may take; the controller has a time-out of its own for each stage."""
_STOPPING = 1.0
"""Seconds for an aborted motion to end, before the group is killed, and for that."""
_UNDER_WAY = 0.05
"""Seconds after which a call has arrived that was sent over another connection, when all was made safe."""
_PAIR = Array(shape=2)
"""Two numbers in one reply."""


def _of_profile(place: int, unit: str, doc: str) -> Control:
    return Control(
        lambda self: self._profile()[place],
        lambda self, value: self._set_profile(place, value),
        unit=unit,
        limits=lambda self: (_LEAST, self.fastest[place]),
        doc=doc,
    )


class Positioner(Component):
    """One positioner of a group: a linear stage."""

    position = Control(
        "GroupPositionCurrentGet({self.number},double *)",
        lambda self, to: go(self, f"GroupMoveAbsolute({self.number},{to!r})", self._seconds_to(to)),
        unit="mm",
        limits=lambda self: tuple(self.travel),
        shared=True,
        doc="Position, as measured. Setting it returns when the positioner is there.",
    )
    setpoint = Measurement(
        "GroupPositionSetpointGet({self.number},double *)", unit="mm", shared=True, doc="Position that is wanted."
    )
    travel = Measurement(
        "PositionerUserTravelLimitsGet({self.number},double *,double *)",
        type=_PAIR,
        unit="mm",
        doc="Lowest and highest position.",
    )
    fastest = Measurement(
        "PositionerMaximumVelocityAndAccelerationGet({self.number},double *,double *)",
        type=_PAIR,
        doc="Highest velocity and acceleration that it is configured to allow, in the units of these.",
    )
    velocity = _of_profile(0, "mm/s", "Velocity of motions.")
    acceleration = _of_profile(1, "mm/s^2", "Acceleration of motions.")

    def _profile(self) -> list[float]:
        """Return velocity, acceleration, and the shortest and longest time of jerk in seconds."""
        call = f"PositionerSGammaParametersGet({self.number},double *,double *,double *,double *)"
        return [*map(float, self._ask(call, Array(shape=4)))]

    def _set_profile(self, place: int, value: float) -> None:
        values = self._profile()
        values[place] = value
        self._query(f"PositionerSGammaParametersSet({self.number},{','.join(map(repr, values))})")

    def _seconds_to(self, target: float) -> float:
        velocity, acceleration, _shortest, longest = self._profile()
        return _RESERVE + float(abs(target - self.position)) / velocity + velocity / acceleration + 2 * longest


class Rotary(Positioner):
    """A rotation stage: in degrees, what is in millimetres elsewhere."""

    position = Positioner.position.replace(unit="deg")
    setpoint = Positioner.setpoint.replace(unit="deg")
    travel = Positioner.travel.replace(unit="deg")
    velocity = Positioner.velocity.replace(unit="deg/s")
    acceleration = Positioner.acceleration.replace(unit="deg/s^2")


_KINDS = {"mm": Positioner, "deg": Rotary}
"""The class of a positioner, by its unit."""


class Group(Component):
    """A group of positioners, which are initialised, homed, moved and stopped together."""

    positioners = Components(Positioner, keys=lambda self: self._positioners())
    status = Measurement(
        "GroupStatusGet({self.number},int *)",
        type=int,
        shared=True,
        doc="State by its number in the manual: 10 to 19 ready, 42 not homed, 43 homing, 44 moving, 0 to 9 off.",
    )
    ready = Measurement(lambda self: self.status in _READY, type=bool, shared=True, doc="Whether it can be moved.")
    moving = Measurement(
        lambda self: self.status not in _AT_REST, type=bool, shared=True, doc="Whether it moves, or may do so."
    )

    def home(self) -> None:
        """Initialise and home the group, which moves it; a group that is ready is left as it is."""
        if self.status in _NOT_INITIALISED:
            go(self, f"GroupInitialize({self.number})", _HOMING)
        if self.status == _NOT_REFERENCED:
            go(self, f"GroupHomeSearch({self.number})", _HOMING)
        if not self.ready:
            raise DeviceProtocolError(f"group {self.number} is not ready: state {self.status}", **self._facts())

    def move(self, positions: Sequence[float]) -> None:
        """Move all positioners at once, in the order of the configuration; returns when they are there."""
        if len(positions) != len(self.positioners):
            raise DeviceValueError(f"one position for each of {list(self.positioners)} was expected", **self._facts())
        pairs = list(zip(self.positioners.values(), positions, strict=True))
        targets = [type(one).position.check(one, target) for one, target in pairs]
        seconds = max(map(Positioner._seconds_to, self.positioners.values(), targets))  # noqa: SLF001 - of this module
        go(self, f"GroupMoveAbsolute({self.number},{','.join(map(repr, targets))})", seconds)

    def stop(self) -> None:
        """Stop it. Where it is homing, this switches its motors off, and it must be homed again."""
        if self.status in _ENDED_BY_ABORT:
            with contextlib.suppress(DeviceProtocolError):  # refused where it has come to rest since
                self._query(f"GroupMoveAbort({self.number})")
            self.wait(lambda: not self.moving, _STOPPING)
        if self.moving:
            self._query(f"GroupKill({self.number})")
        if not self.wait(lambda: not self.moving, _STOPPING):
            raise DeviceTimeoutError(f"group {self.number} does not come to rest", **self._facts())

    def _positioners(self) -> dict[str, Positioner]:
        units = self.device._layout[self.number]  # noqa: SLF001 - of its driver
        return {name: _KINDS[unit](f"{self.number}.{name}") for name, unit in units.items()}

    def _make_safe(self) -> None:
        """Stop it; the motors of a group that is homing are switched off, and it must be homed again."""
        self.stop()
        self.wait(_UNDER_WAY)
        self.stop()


class XpsQ8(XpsController):
    """Groups of stages; it is safe when none of the groups moves.

    Several devices may have the same address and different groups, which then move at the same time.
    """

    groups = Components(Group, keys=lambda self: [*self._layout])


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"newport_xps_q8": XpsQ8}

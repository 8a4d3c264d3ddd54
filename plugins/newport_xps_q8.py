"""Newport XPS-Q8 motion controller (XPS-C8 and XPS-D are spoken to in the same way): driver ``newport_xps_q8``.

TCP port 5001. The text of a function call is sent, with the types of its results in their places (``double *``). The
reply is ``error,results,EndOfAPI``, and after an error it repeats the call. A connection that has not answered yet
takes no other call, and a motion is answered when it has ended. So each motion has a connection of its own.

Framing and functions: Newport XPS-Q8 User's Manual and Programmer's Manual (TCP/IP), PyPI newportxps
``XPS_C8_drivers.py``. Error numbers, and that a positioner can be moved by its own name: github
epics-motor/motorNewport ``XPS_C8_errors.h``, ``XPSAxis.cpp``. Group states: github nasa-jpl/golaborate
``newport/xps.go``. That homing ends by a kill only: ``XPSAxis.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.components import Component, Components
from catkit_devices.errors import ConfigurationError, DeviceProtocolError, DeviceTimeoutError, DeviceValueError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice

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

_NOT_NOW = -22
"""The error of a call that the present state of the group does not allow."""
_ERRORS = {
    -1: "the connection is busy", -2: "time-out", -4: "unknown command", -5: "positioner error", -7: "wrong format",
    -8: "wrong type of object", -9: "wrong number of arguments", -17: "out of range", -18: "no such positioner",
    -19: "no such group", -20: "fatal error of the initialisation", -21: "initialising",
    _NOT_NOW: "not possible in the present state of the group", -25: "following error", -26: "emergency stop",
    -27: "aborted", -28: "homing took too long", -31: "home is out of range", -33: "the motion took too long",
    -35: "outside of the travel limits", -44: "the group is a slave", -45: "at the end of its run",
    -49: "error of the reference mark", -50: "the motor cannot be initialised", -109: "it must be homed first",
    -113: "at both ends of its run",
}  # fmt: skip
"""Of those in ``XPS_C8_errors.h``, which a motion may end with."""

_NUMBER = r"-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
"""A number in a reply."""
_LEAST = 1e-6
"""Lowest velocity and acceleration, since the controller wants them above zero."""
_RESERVE = 10.0
"""Seconds that a motion may take in addition to what follows from its velocity and acceleration."""
_HOMING = 180.0
"""Seconds that initialising or homing may take; the controller has a time-out of its own for each stage."""
_STOPPING = 1.0
"""Seconds for an aborted motion to end, before the group is killed."""
_UNDER_WAY = 0.05
"""Seconds after which a call has arrived that was sent over another connection, when all was made safe."""


class _Calls:
    """What the device and its components have in common: calls of the controller's functions."""

    def _call(self: Any, call: str, *results: str, seconds: float | None = None, harmless: int = 0) -> list[str]:
        """Call a function of the controller, and return its results.

        Args:
            call: the text.
            *results: a regular expression for each of them.
            seconds: that it may take, if it is answered only when it has ended.
            harmless: the number of an error that is none here.
        """
        right = re.compile("0," + ",".join(f"({result})" for result in results))

        def parse(reply: str) -> tuple[int, list[str]]:
            if (found := right.fullmatch(reply)) is not None:
                return 0, [*found.groups()]
            code, _comma, rest = reply.partition(",")
            if rest != call or not re.fullmatch(r"-?[1-9]\d*", code):
                raise ValueError(
                    f"{len(results)} results, or an error number and {call!r}, were expected, got {reply!r}"
                )
            return int(code), []

        code, values = self._ask(call, parse) if seconds is None else self._ask_aside(call, parse, seconds)
        if code not in (0, harmless):
            text = _ERRORS.get(code, "see the controller's list of errors")
            raise DeviceProtocolError(f"the controller reports error {code}: {text}", **self._facts(call))
        found: list[str] = values
        return found

    def _numbers(self: Any, function: str, of: str, results: int = 1) -> list[float]:
        """Ask a function for one or more numbers about a positioner."""
        places = ",".join(["double *"] * results)
        return [float(value) for value in self._call(f"{function}({of},{places})", *[_NUMBER] * results)]

    def _status(self: Any, group: str) -> int:
        return int(self._call(f"GroupStatusGet({group},int *)", r"\d{1,3}")[0])

    def _stop(self: Any, group: str) -> None:
        """End what a group does: by an abort; if that does not help, by a kill, after which the group must be homed."""

        def at_rest() -> bool:
            return self._status(group) in _AT_REST

        if at_rest():
            return
        # It may have come to rest since: then the abort is refused.
        self._call(f"GroupMoveAbort({group})", harmless=_NOT_NOW)
        if self._status(group) in _ENDED_BY_ABORT and self.wait(at_rest, _STOPPING):
            return
        if not at_rest():
            self._call(f"GroupKill({group})")
        if not self.wait(at_rest, _STOPPING):
            raise DeviceTimeoutError(f"group {group} does not come to rest", **self._facts())


class _Limits(NamedTuple):
    """What the controller is configured to allow for one positioner, in its unit."""

    travel: tuple[float, float]
    velocity: float
    acceleration: float


def _position(unit: str) -> Control:
    return Control(
        lambda self: self._numbers("GroupPositionCurrentGet", self.number)[0],
        lambda self, position: self._move(position),
        unit=unit,
        limits=lambda self: self._limits.travel,
        shared=True,
        doc="Position, as measured. Setting it returns when the positioner is there.",
    )


def _setpoint(unit: str) -> Measurement:
    return Measurement(
        lambda self: self._numbers("GroupPositionSetpointGet", self.number)[0],
        unit=unit,
        shared=True,
        doc="Position at which the controller wants it at this moment.",
    )


def _velocity(unit: str) -> Control:
    return Control(
        lambda self: self._profile()[0],
        lambda self, velocity: self._set_profile(velocity, self._profile()[1]),
        unit=f"{unit}/s",
        limits=lambda self: (_LEAST, self._limits.velocity),
        doc="Velocity of motions.",
    )


def _acceleration(unit: str) -> Control:
    return Control(
        lambda self: self._profile()[1],
        lambda self, acceleration: self._set_profile(self._profile()[0], acceleration),
        unit=f"{unit}/s^2",
        limits=lambda self: (_LEAST, self._limits.acceleration),
        doc="Acceleration of motions.",
    )


class Positioner(_Calls, Component):
    """One positioner of a group: a linear stage."""

    position, setpoint = _position("mm"), _setpoint("mm")
    velocity, acceleration = _velocity("mm"), _acceleration("mm")

    def __init__(self, number: str, limits: _Limits) -> None:
        super().__init__(number)
        self._limits = limits

    def _profile(self) -> list[float]:
        """Return velocity, acceleration, and the shortest and longest time of jerk in seconds."""
        return self._numbers("PositionerSGammaParametersGet", self.number, 4)

    def _set_profile(self, velocity: float, acceleration: float) -> None:
        jerk = self._profile()[2:]
        values = ",".join(repr(value) for value in (velocity, acceleration, *jerk))
        self._call(f"PositionerSGammaParametersSet({self.number},{values})")

    def _move(self, target: float) -> None:
        self._call(f"GroupMoveAbsolute({self.number},{target!r})", seconds=self._seconds_to(target))

    def _seconds_to(self, target: float) -> float:
        velocity, acceleration, _shortest, longest = self._profile()
        way = abs(target - self._numbers("GroupPositionCurrentGet", self.number)[0])
        return _RESERVE + way / velocity + velocity / acceleration + 2 * longest


class Rotary(Positioner):
    """A rotation stage: in degrees, what is in millimetres elsewhere."""

    position, setpoint = _position("deg"), _setpoint("deg")
    velocity, acceleration = _velocity("deg"), _acceleration("deg")


_KINDS = {"mm": Positioner, "deg": Rotary}
"""The class of a positioner, by its unit."""


class Group(_Calls, Component):
    """A group of positioners, which are initialised, homed, moved and stopped together."""

    positioners = Components(Positioner, keys=lambda self: self._positioners())

    status = Measurement(
        lambda self: self._status(self.number),
        type=int,
        shared=True,
        doc="State by its number in the manual: 10 to 19 ready, 42 not homed, 43 homing, 44 moving, 0 to 9 off.",
    )
    ready = Measurement(
        lambda self: self._status(self.number) in _READY, type=bool, shared=True, doc="Whether it can be moved."
    )
    moving = Measurement(
        lambda self: self._status(self.number) not in _AT_REST,
        type=bool,
        shared=True,
        doc="Whether it is in motion, or in a state that this driver does not know.",
    )

    def __init__(self, number: str, units: Mapping[str, str]) -> None:
        super().__init__(number)
        self._units = dict(units)

    def home(self) -> None:
        """Initialise and home the group, which moves it; a group that is ready is left as it is."""
        if self._status(self.number) in _NOT_INITIALISED:
            self._call(f"GroupInitialize({self.number})", seconds=_HOMING)
        if self._status(self.number) == _NOT_REFERENCED:
            self._call(f"GroupHomeSearch({self.number})", seconds=_HOMING)
        if (status := self._status(self.number)) not in _READY:
            raise DeviceProtocolError(f"group {self.number} is not ready: it is in state {status}", **self._facts())

    def move(self, positions: Sequence[float]) -> None:
        """Move all positioners at once, in the order of the configuration; returns when they are there."""
        positioners = list(self.positioners.values())
        if len(positions) != len(positioners):
            raise DeviceValueError(f"one position for each of {list(self.positioners)} was expected", **self._facts())
        for positioner, target in zip(positioners, positions, strict=True):
            lowest, highest = positioner._limits.travel  # noqa: SLF001 - of this module
            if not lowest <= target <= highest:
                raise DeviceValueError(
                    f"the position of {positioner.number} must be {lowest:g} to {highest:g}, got {target}",
                    **self._facts(),
                )
        pairs = zip(positioners, positions, strict=True)
        seconds = max(each._seconds_to(target) for each, target in pairs)  # noqa: SLF001 - of this module
        targets = ",".join(repr(float(target)) for target in positions)
        self._call(f"GroupMoveAbsolute({self.number},{targets})", seconds=seconds)

    def stop(self) -> None:
        """Stop it. Where it is homing, this switches its motors off, and it must be homed again."""
        self._stop(self.number)

    def _positioners(self) -> dict[str, Positioner]:
        positioners: dict[str, Positioner] = {}
        for name, unit in self._units.items():
            whole = f"{self.number}.{name}"
            travel = self._numbers("PositionerUserTravelLimitsGet", whole, 2)
            velocity, acceleration = self._numbers("PositionerMaximumVelocityAndAccelerationGet", whole, 2)
            limits = _Limits((travel[0], travel[1]), velocity, acceleration)
            positioners[name] = _KINDS[unit](whole, limits)
        return positioners


class XpsQ8(_Calls, VisaDevice):
    """Groups of stages; it is safe when none of the groups moves.

    Several devices may have the same address and different groups, which then move at the same time.

    Args:
        name: the device's name.
        groups: the groups, by the names that they have in the controller's configuration. For each group, the names
            of its positioners with their units, ``"mm"`` or ``"deg"``:
            ``{"Group1": {"Pos": "deg"}, "XY": {"X": "mm", "Y": "mm"}}``.
        **options: of :class:`~catkit_devices.visa.VisaDevice`.
    """

    identity = "XPS"
    read_termination = ",EndOfAPI"
    write_termination = ""

    groups = Components(Group, keys=lambda self: self._known_groups())

    def __init__(self, name: str, *, groups: Mapping[str, Mapping[str, str]], **options: Any) -> None:
        super().__init__(name, **options)
        if not _is_layout(groups):
            raise ConfigurationError(
                "groups must be the positioners of each group, with their units mm or deg, such as "
                f"{{'XY': {{'X': 'mm', 'Y': 'mm'}}}}, got {groups!r}",
                key=f"devices.{name}.groups",
            )
        self._layout = {group: dict(positioners) for group, positioners in groups.items()}

    def _identify(self) -> None:
        self._check_identity(self._call("FirmwareVersionGet(char *)", ".+")[0])

    def _known_groups(self) -> dict[str, Group]:
        for group in self._layout:
            self._status(group)  # an error if the controller has no such group
        return {group: Group(group, units) for group, units in self._layout.items()}

    def _make_safe(self) -> None:
        """Stop every group; the motors of one that is homing are switched off, and it must be homed again."""
        for group in self._layout:
            self._stop(group)
        self.wait(_UNDER_WAY)
        for group in self._layout:
            self._stop(group)


def _is_layout(layout: Any) -> bool:
    positioners = list(layout.values()) if isinstance(layout, Mapping) else []
    if not positioners or not all(isinstance(one, Mapping) and one for one in positioners):
        return False
    names = [*layout, *(name for one in positioners for name in one)]
    return all(isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in names) and all(
        unit in _KINDS for one in positioners for unit in one.values()
    )


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"newport_xps_q8": XpsQ8}

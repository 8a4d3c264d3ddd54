"""A simulated Newport XPS-Q8 motion controller.

Sources: those of the driver ``newport_xps_q8``. Every connection is answered by itself: while it waits for the end of a
call, it refuses others with error -1, and other connections are answered at once.

* ``GroupInitialize``, ``GroupHomeSearch`` and motions are answered when they have ended, and with -27 when they were
  aborted or killed. States: 0 at first, 42 initialised, 43 homing, 11 homed, 44 moving, 12 moved, 10 aborted, 7 killed,
  20 disabled.
* ``GroupMoveAbort`` is refused (-22) while the group does not move; homing (43) ends by ``GroupKill`` only.

Assumed: motions have no ramps; a position outside of the travel limits is error -17; the texts of errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import MotorAxis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from catkit_devices.simulation import Bench

__all__ = ["XpsQ8"]

_FIRMWARE = "XPS-Q8 Firmware Version 2.5.0"
"""The reply to ``FirmwareVersionGet``."""
_ERRORS = {
    -4: "Unknown command",
    -7: "Wrong format in the command string",
    -8: "Wrong object type for this command",
    -9: "Wrong number of parameters in the command",
    -14: "Wrong parameter type in the command string: double or double * expected",
    -17: "Parameter out of range or incorrect",
    -18: "Positioner Name doesn't exist or unknown command",
    -19: "GroupName doesn't exist or unknown command",
    -22: "Not allowed action",
    -27: "Move Aborted",
}
"""What ``ErrorStringGet`` says of the errors that this simulator reports."""
_READY = {*range(10, 20), 70, 77}
"""States in which a group can be moved."""
_INITIALISING, _HOMING = 1.0, 5.0
"""Seconds."""
_TRAVEL = (-25.0, 25.0)  # mm
_FASTEST = (50.0, 400.0)
"""mm/s and mm/s²."""
_PROFILE = (20.0, 80.0, 0.005, 0.05)
"""mm/s, mm/s², and two times of jerk in seconds."""
_LONGEST = 4096  # characters of a call


class _RefusedError(Exception):
    """The argument is the error's number."""


@dataclass
class _Motion:
    """What a group does.

    Attributes:
        until: when it ends, on the clock.
        status: of the group, when it has ended.
        error: number, once it has ended.
    """

    until: float
    status: int
    error: int | None = None


class _Group:
    """One group."""

    def __init__(self, bench: Bench, names: Iterable[str], *, ready: bool) -> None:
        self.clock = bench.clock
        self.axes = {name: MotorAxis(bench.clock) for name in names}
        self.profiles = dict.fromkeys(self.axes, _PROFILE)
        self._status = 11 if ready else 0
        self._motion: _Motion | None = None

    @property
    def status(self) -> int:
        self.look()
        return self._status

    def look(self) -> None:
        """Notice that its motion has ended."""
        if self._motion is not None and self.clock.time() >= self._motion.until:
            self._end(0, self._motion.status)

    @property
    def moving(self) -> bool:
        return self.status in (41, 43, 44)

    def begin(self, status: int, until: float, after: int) -> _Motion:
        self._status, self._motion = status, _Motion(until, after)
        return self._motion

    def end(self, status: int) -> None:
        """End it before its time."""
        for axis in self.axes.values():
            axis.stop()
        self._end(-27, status)

    def _end(self, error: int, status: int) -> None:
        if self._motion is not None:
            self._motion.error = error
        self._status, self._motion = status, None

    def require(self, *statuses: int) -> None:
        if self.status not in statuses:
            raise _RefusedError(-22)


class XpsQ8:
    """The simulator ``newport_xps_q8``.

    Args:
        bench: the simulated bench that it is part of.
        device_options: of the devices at this address.
        groups: the positioners of each group; by default those of the devices.
        ready: whether its groups are homed at the start.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        device_options: Sequence[Mapping[str, Any]] = (),
        groups: Mapping[str, Iterable[str]] | None = None,
        ready: bool = False,
    ) -> None:
        self.bench = bench
        of_devices = {name: names for one in device_options for name, names in one.get("groups", {}).items()}
        layout = groups or of_devices or {"Group1": ("Pos",)}
        self.groups = {name: _Group(bench, names, ready=ready) for name, names in layout.items()}
        self.calls: list[tuple[int, str]] = []
        """Number of the connection, and the text of the call."""
        self._connections = 0
        self._own = self.connect()
        self._functions: dict[str, tuple[int, Callable[..., Any]]] = {
            # name: number of results, and what it does with its other arguments
            "FirmwareVersionGet": (1, lambda: _FIRMWARE),
            "ErrorStringGet": (1, lambda number: _ERRORS.get(int(_number(number)), "Unknown error code")),
            "GroupStatusGet": (1, lambda name: self._group(name).status),
            "GroupPositionCurrentGet": (-1, self._positions),
            "GroupPositionSetpointGet": (-1, self._positions),
            "GroupInitialize": (0, lambda name: self._begin(name, range(10), 41, _INITIALISING, 42)),
            "GroupHomeSearch": (0, self._home),
            "GroupMoveAbsolute": (0, self._move),
            "GroupMoveAbort": (0, self._abort),
            "GroupKill": (0, lambda name: self._group(name).end(7)),
            "GroupMotionDisable": (0, lambda name: self._begin(name, _READY, 20, 0.0, 20)),
            "GroupMotionEnable": (0, lambda name: self._begin(name, (20,), 13, 0.0, 13)),
            "KillAll": (0, self._kill_all),
            "PositionerUserTravelLimitsGet": (2, lambda name: self._of_positioner(name, _TRAVEL)),
            "PositionerMaximumVelocityAndAccelerationGet": (2, lambda name: self._of_positioner(name, _FASTEST)),
            "PositionerSGammaParametersGet": (4, self._profile),
            "PositionerSGammaParametersSet": (0, self._set_profile),
        }

    def connect(self) -> _Connection:
        """Return the controller's end of a new connection."""
        self._connections += 1
        return _Connection(self, self._connections)

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies, as one connection does."""
        return self._own.feed(data)

    def execute(self, call: str) -> tuple[_Motion | None, str]:
        """Carry out a call; return what is to be waited for, if there is anything, and the results."""
        found = re.fullmatch(r"\s*(\w+)\s*\((.*)\)", call, re.DOTALL)
        if found is None:
            raise _RefusedError(-7)
        if found[1] not in self._functions:
            raise _RefusedError(-4)
        given = [one.strip() for one in found[2].split(",")] if found[2].strip() else []
        arguments = [one for one in given if not one.endswith("*")]
        results, function = self._functions[found[1]]
        if results < 0 and arguments:
            results = len(self._axes(arguments[0])[1])
        if len(given) - len(arguments) != results:
            raise _RefusedError(-9)
        try:
            result = function(*arguments)
        except TypeError:
            raise _RefusedError(-9) from None
        if isinstance(result, tuple):
            result = ",".join(f"{value:.12g}" for value in result)
        return (result, "") if isinstance(result, _Motion) else (None, "" if result is None else str(result))

    def _group(self, name: str) -> _Group:
        if name not in self.groups:
            raise _RefusedError(-19)
        return self.groups[name]

    def _axes(self, name: str) -> tuple[_Group, list[str]]:
        """Return a group and the names of those of its positioners that ``name`` means."""
        group_name, dot, positioner = name.partition(".")
        group = self._group(group_name)
        if dot and positioner not in group.axes:
            raise _RefusedError(-18)
        return group, [positioner] if dot else list(group.axes)

    def _positioner(self, name: str) -> tuple[_Group, str]:
        if "." not in name:
            raise _RefusedError(-8)
        group, [positioner] = self._axes(name)
        return group, positioner

    def _of_positioner(self, name: str, values: tuple[float, ...]) -> tuple[float, ...]:
        self._positioner(name)
        return values

    def _positions(self, name: str) -> tuple[float, ...]:
        group, names = self._axes(name)
        return tuple(group.axes[one].position() for one in names)

    def _profile(self, name: str) -> tuple[float, ...]:
        group, positioner = self._positioner(name)
        return group.profiles[positioner]

    def _set_profile(self, name: str, velocity: str, acceleration: str, shortest: str, longest: str) -> None:
        group, positioner = self._positioner(name)
        values = [_number(text) for text in (velocity, acceleration, shortest, longest)]
        if not (0 < values[0] <= _FASTEST[0] and 0 < values[1] <= _FASTEST[1]):
            raise _RefusedError(-17)
        group.profiles[positioner] = (values[0], values[1], values[2], values[3])

    def _begin(self, name: str, allowed: Any, status: int, seconds: float, after: int) -> _Motion:
        group = self._group(name)
        group.require(*allowed)
        return group.begin(status, self.bench.clock.time() + seconds, after)

    def _home(self, name: str) -> _Motion:
        motion = self._begin(name, (42,), 43, _HOMING, 11)
        for axis in self._group(name).axes.values():
            axis.go(0.0, max(abs(axis.position()) / _HOMING, 1e-9))
        return motion

    def _move(self, name: str, *targets: str) -> _Motion:
        group, names = self._axes(name)
        values = [_number(text) for text in targets]
        if len(values) != len(names):
            raise _RefusedError(-9)
        group.require(*_READY)
        if not all(_TRAVEL[0] <= value <= _TRAVEL[1] for value in values):
            raise _RefusedError(-17)
        for one, value in zip(names, values, strict=True):
            group.axes[one].go(value, group.profiles[one][0])
        return group.begin(44, max(group.axes[one].arrival for one in names), 12)

    def _abort(self, name: str) -> None:
        group = self._group(name)
        group.require(44)
        group.end(10)

    def _kill_all(self) -> None:
        for group in self.groups.values():
            group.end(7)


class _Connection:
    """The controller's end of one connection."""

    def __init__(self, controller: XpsQ8, number: int) -> None:
        self._controller = controller
        self._number = number
        self._received = ""
        self._waits: tuple[str, _Motion] | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies that are due by now."""
        replies = self._ended()
        self._received += data.decode("latin-1")
        while ")" in self._received:
            call, _end, self._received = self._received.partition(")")
            replies += self._answer(f"{call})")
        self._received = self._received[-_LONGEST:]
        return "".join(f"{reply},EndOfAPI" for reply in replies).encode("latin-1")

    def _ended(self) -> list[str]:
        for group in self._controller.groups.values():
            group.look()
        if self._waits is None or self._waits[1].error is None:
            return []
        call, motion = self._waits
        self._waits = None
        return [f"{motion.error},{call if motion.error else ''}"]

    def _answer(self, call: str) -> list[str]:
        self._controller.calls.append((self._number, call))
        if self._waits is not None:
            return [f"-1,{call}"]
        try:
            motion, results = self._controller.execute(call)
        except _RefusedError as error:
            return [f"{error.args[0]},{call}"]
        if motion is None:
            return [f"0,{results}"]
        self._waits = call, motion
        return self._ended()


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
        raise _RefusedError(-14)
    return float(text)


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"newport_xps_q8": XpsQ8}

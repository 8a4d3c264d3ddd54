r"""A simulated Newport (New Focus) 8742 picomotor controller with four motors.

Sources: Newport 8743-CL User's Manual p. 45-52 (lines), 68-117 (commands), 124-127 (errors), and the 8742's command
table; pylablib ``devices/Newport/picomotor.py`` and github quartiq/newfocus8742 (telnet bytes, port).

* ``[axis]CC[value]`` ends with CR, LF or both, in either case; ``;`` joins commands, and the answers come back joined
  by ``; ``, ended by CR LF. On connecting the unit sends FF FB 01 FF FB 03.
* One motor moves at a time: a second motion does not begin, and leaves the error x14. The buffer has ten errors; the
  newest is read first, and each is read once.

Assumed: motions have no ramps; a command for another controller (``n>``) has no answer.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import MotorAxis

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation import Bench

__all__ = ["Picomotor8742"]

_GREETING = b"\xff\xfb\x01\xff\xfb\x03"
"""Telnet's IAC WILL ECHO, IAC WILL SUPPRESS-GO-AHEAD, sent at the start of a connection."""
_AXES = 4  # motors
_FARTHEST = 2147483647
"""Steps."""
_TEXTS = {
    0: "NO ERROR DETECTED",
    6: "COMMAND DOES NOT EXIST",
    7: "PARAMETER OUT OF RANGE",
    9: "AXIS NUMBER OUT OF RANGE",
    37: "AXIS NUMBER MISSING",
    38: "COMMAND PARAMETER MISSING",
}
"""Errors of the controller."""
_AXIS_TEXTS = {1: "PARAMETER OUT OF RANGE", 8: "MOTOR NOT CONNECTED", 14: "MOTION IN PROGRESS"}
"""Errors of an axis; the number of the axis is put in front."""


class _RefusedError(Exception):
    """The argument is the error's number."""


class Picomotor8742:
    """The simulator ``newport_8742``.

    Args:
        bench: the simulated bench that it is part of.

    Attributes:
        axes: the motors, by number.
    """

    def __init__(self, bench: Bench) -> None:
        self.axes = {number: MotorAxis(bench.clock) for number in range(1, _AXES + 1)}
        self._zero = dict.fromkeys(self.axes, 0)
        self._settings = {"VA": dict.fromkeys(self.axes, 2000), "AC": dict.fromkeys(self.axes, 100000),
                          "QM": dict.fromkeys(self.axes, 3)}  # fmt: skip
        self._targets = dict.fromkeys(self.axes, 0)
        self._errors: deque[int] = deque(maxlen=10)
        self._received = ""
        self._greeting = _GREETING
        self._ranges = {"VA": range(1, 2001), "AC": range(1, 200001), "QM": range(4)}
        self._commands: dict[str, Callable[[int, int], None]] = {
            "PA": self._move,
            "PR": lambda axis, value: self._move(axis, self._position(axis) + value),
            "DH": self._redefine,
        }

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies."""
        *lines, self._received = re.split("[\r\n]", self._received + data.decode("latin-1"))
        greeting, self._greeting = self._greeting, b""
        return greeting + b"".join(self._line(line) for line in lines if line.strip())

    def _line(self, line: str) -> bytes:
        answers = []
        for command in line.split(";"):
            try:
                answer = self._execute(command.strip().upper())
            except _RefusedError as error:
                self._errors.appendleft(error.args[0])
                continue
            if answer is not None:
                answers.append(answer)
        return "; ".join(answers).encode() + b"\r\n" if answers else b""

    def _execute(self, command: str) -> str | None:
        found = re.fullmatch(r"(\d*)(\*?[A-Z]+)([+-]?\d*|[+-])(\?)?", command)
        if found is None:
            raise _RefusedError(6)
        axis, name, value, query = found.groups()
        if query:
            return self._query(axis, name)
        if name in ("AB", "MC", "SM", "RS", "*RST"):
            for motor in self.axes.values():
                motor.stop()
            return None
        number = self._axis(axis)
        if name == "ST":
            self.axes[number].stop()
        elif name == "MV" and value in ("+", "-"):
            self._move(number, _FARTHEST if value == "+" else -_FARTHEST)
        elif name not in self._commands and name not in self._settings:
            raise _RefusedError(6)
        elif not value.strip("+-"):
            if name != "DH":
                raise _RefusedError(38)
            self._redefine(number, 0)
        elif name in self._settings:
            if int(value) not in self._ranges[name]:
                raise _RefusedError(100 * number + 1)
            self._settings[name][number] = int(value)
        elif abs(int(value)) > _FARTHEST:
            raise _RefusedError(100 * number + 1)
        else:
            self._commands[name](number, int(value))
        return None

    def _query(self, axis: str, name: str) -> str:
        if name == "*IDN":
            return "New_Focus 8742 v3.04 08/01/13 11511"
        if name in ("TB", "TE"):
            error = self._errors.popleft() if self._errors else 0
            text = _TEXTS.get(error) or _AXIS_TEXTS[error % 100]
            return f"{error}, {text}" if name == "TB" else str(error)
        number = self._axis(axis)
        if name in self._settings:
            return str(self._settings[name][number])
        answers = {"TP": self._position(number), "MD": int(not self.axes[number].moving), "PA": self._targets[number],
                   "DH": self._zero[number]}  # fmt: skip
        if name not in answers:
            raise _RefusedError(6)
        return str(answers[name])

    def _axis(self, text: str) -> int:
        if not text:
            raise _RefusedError(37)
        if int(text) not in self.axes:
            raise _RefusedError(9)
        return int(text)

    def _position(self, axis: int) -> int:
        return int(self.axes[axis].position()) - self._zero[axis]

    def _redefine(self, axis: int, value: int) -> None:
        self._zero[axis] = int(self.axes[axis].position()) - value

    def _move(self, axis: int, target: int) -> None:
        if any(motor.moving for motor in self.axes.values()):
            raise _RefusedError(100 * axis + 14)
        if self._settings["QM"][axis] == 0:
            raise _RefusedError(100 * axis + 8)
        self._targets[axis] = target
        self.axes[axis].go(target + self._zero[axis], self._settings["VA"][axis])


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"newport_8742": Picomotor8742}

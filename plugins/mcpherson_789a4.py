"""McPherson 789A-4 scan controller, the motor of a monochromator: driver ``mcpherson_789a4``.

RS-232 at 9600 baud, 8N1, XON/XOFF. A command ends with CR; the unit echoes it and sends the value, if there is one, and
CR LF. Commands, limit and motion bits, and how it finds home: McPherson Model 789A-4 manual p. 7-18. Echo, line end,
and that it must not be asked more often than every 0.8 s: github spacetelescope/catkit
``catkit/hardware/mcpherson/scan_controller_789a4.py``. It has no error messages, it tells its identity only after
power-up, and it has no command that reads the position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DeviceProtocolError, DeviceTimeoutError, DeviceValueError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["ScanController789A4"]

_FARTHEST = 8388600  # steps of one motion
_FAST, _SLOW = 23000, 1000  # steps per second: to the home switch, and then to its edge
_BACK, _FORTH = 108000, 72000
"""Steps away from the home switch, and back towards it: then its edge is found from the same side each time."""
_INTERVAL = 0.8  # seconds between two questions
_LONGEST = 480.0
"""Seconds; from end to end it takes 470 s at 23000 steps per second."""
_HOME, _HIGH, _LOW = 32, 64, 128
"""Bits of the reply to ``]``: which switches are touched."""


class ScanController789A4(VisaDevice):
    """The motor of a monochromator; it is safe when it does not move and its home circuit is off."""

    read_termination = "\r\n"
    write_termination = "\r"
    flow_control = "xon_xoff"

    moving = Measurement(
        lambda self: self._number("^") & ~16 != 0, type=bool, shared=True, doc="Motion: in progress or not."
    )
    at_home = Measurement(
        lambda self: bool(self._number("]") & _HOME),
        type=bool,
        shared=True,
        doc="Home switch: touched or not; known only while home() runs, since only then the home circuit is on.",
    )
    at_high_limit = Measurement(
        lambda self: bool(self._number("]") & _HIGH), type=bool, shared=True, doc="High limit switch: touched or not."
    )
    at_low_limit = Measurement(
        lambda self: bool(self._number("]") & _LOW), type=bool, shared=True, doc="Low limit switch: touched or not."
    )
    velocity = Control(
        lambda self: self._parameter("V"),
        "V {}",
        type=int,
        limits=(36, 60000),
        unit="1/s",
        doc="Velocity of motions, in steps per second; 36000 steps make one turn of the motor.",
    )

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._position: int | None = None

    @property
    def position(self) -> int | None:
        """Steps from home, counted by this driver; None while it is not known, as before :meth:`home`."""
        return self._position

    def move_by(self, steps: int) -> None:
        """Move by ``steps``, at most 8388600 in either direction; returns when the motor is there."""
        if not 0 < abs(steps) <= _FARTHEST:
            raise DeviceValueError(f"steps must be 1 to {_FARTHEST} either way, got {steps}", **self._facts())
        start, self._position = self._position, None
        self._write(f"{steps:+d}")
        self._come_to_rest()
        if self._number("]") & (_HIGH | _LOW):
            raise DeviceProtocolError("a limit switch has stopped the motion", **self._facts())
        self._position = None if start is None else start + steps

    def home(self) -> None:
        """Find the edge of the home switch, as the manual says; returns when the motor is there."""
        self._position = None
        self._write("@")  # an earlier motion, whose call has ended with an error, may still go on
        self._come_to_rest()
        self._write("A8")
        touched = bool(self._number("]") & _HOME)
        self._write(f"M{'+' if touched else '-'}{_FAST}")
        if not self.wait(lambda: bool(self._number("]") & _HOME) is not touched, _LONGEST, _INTERVAL):
            raise DeviceTimeoutError(f"the home switch was not found in {_LONGEST:g} s", **self._facts())
        for command in ("@", f"-{_BACK}", f"+{_FORTH}", "A24", f"F{_SLOW},0"):
            self._write(command)
            self._come_to_rest()
        self._write("A0")
        self._position = 0

    def stop(self) -> None:
        """Slow down and stop."""
        self._position = None
        self._write("@")
        self._come_to_rest()

    def _identify(self) -> None:
        with self._exchange(" "):  # after power-up this starts it; later the reply is only a prompt
            self._send(" ")
            self._read()
        self._parameter("V")

    def _query(self, command: str, timeout: float | None = None) -> str:
        with self._exchange(command):
            self._send(command)
            reply = self._read(timeout)
            if not reply.startswith(command):
                raise ValueError(f"the echo {command!r} was expected, got {reply!r}")
        return reply.removeprefix(command).strip()

    def _write(self, command: str) -> None:
        if reply := self._query(command):
            raise DeviceProtocolError(f"no reply was expected, got {reply!r}", **self._facts(command))

    def _number(self, command: str) -> int:
        return self._ask(command, int)

    def _parameter(self, name: str) -> int:
        """Return a parameter from a line such as ``K= 50 I= 1000 V= 61440``."""

        def parse(reply: str) -> int:
            found = dict(zip(reply.split()[::2], reply.split()[1::2], strict=False))
            if list(found) != ["K=", "I=", "V="]:
                raise ValueError(f"K, I and V were expected, got {reply!r}")
            return int(found[f"{name}="])

        return self._ask("X", parse)

    def _come_to_rest(self) -> None:
        if not self.wait(lambda: not self._number("^") & ~16, _LONGEST, _INTERVAL):
            raise DeviceTimeoutError(f"still moving after {_LONGEST:g} s", **self._facts())

    def _make_safe(self) -> None:
        """Slow the motor down and stop it, and switch the home circuit off."""
        self._write("@")
        if not self.wait(lambda: not self._number("^") & ~16, 5 * self.io_timeout, 0.1):
            raise DeviceTimeoutError("the motor does not stop", **self._facts("@"))
        self._write("A0")


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"mcpherson_789a4": ScanController789A4}

"""Newport (New Focus) 8742 picomotor controller: driver ``newport_8742``.

TCP port 23; commands end with CR, replies with CR LF. On connecting the unit sends six bytes of the telnet protocol.
Commands, errors, and that only one motor moves at a time: Newport 8743-CL User's Manual p. 45-52, 68-117, 124-127, and
the 8742's command table; port and telnet bytes: pylablib ``devices/Newport/picomotor.py`` and github
quartiq/newfocus8742 ``newfocus8742/tcp.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceProtocolError, DeviceTimeoutError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["Picomotor8742"]

_FARTHEST = 2147483647  # steps
_NO_ERROR = "0, NO ERROR DETECTED"
"""The reply to ``TB?`` where there is none."""
_MOST_ERRORS = 10
"""Errors that the unit keeps."""
_RESERVE = 5.0
"""Seconds that a motion may take in addition to its steps divided by its velocity."""


class Motor(Component):
    """One motor of the controller."""

    position = Control(
        lambda self: self._whole("TP?"),
        lambda self, position: self._move(position),
        type=int,
        limits=(-_FARTHEST, _FARTHEST),
        shared=True,
        doc="Steps since power-up or redefine(), counted and not measured. Setting it returns on arrival.",
    )
    moving = Measurement(
        lambda self: self._whole("MD?") == 0, type=bool, shared=True, doc="Motion: in progress or not."
    )
    velocity = Control(
        lambda self: self._whole("VA?"),
        "{self.number}VA{}",
        type=int,
        limits=(1, 2000),
        unit="1/s",
        doc="Velocity, in steps per second; the tiny motor reaches 1750.",
    )
    acceleration = Control(
        lambda self: self._whole("AC?"),
        "{self.number}AC{}",
        type=int,
        limits=(1, 200000),
        unit="1/s^2",
        doc="Acceleration, in steps per second per second.",
    )
    motor_type = Control(
        "{self.number}QM?",
        "{self.number}QM{}",
        choices={"none": 0, "unknown": 1, "tiny": 2, "standard": 3},
        doc="Kind of motor that is connected.",
    )

    def redefine(self, position: int) -> None:
        """Call the present place ``position``; nothing moves."""
        self._write(f"{self.number}DH{position:d}")

    def stop(self) -> None:
        """Slow down and stop."""
        self._write(f"{self.number}ST")

    def _move(self, position: int) -> None:
        seconds = abs(position - self._whole("TP?")) / self._whole("VA?") + _RESERVE
        self._write(f"{self.number}PA{position}")
        if not self.wait(lambda: self._whole("MD?") == 1, seconds, 0.1):
            raise DeviceTimeoutError(f"motor {self.number} still moves after {seconds:.0f} s", **self._facts())
        found = self._whole("TP?")
        if found != position:
            raise DeviceProtocolError(
                f"motor {self.number} stopped at {found} on its way to {position}", **self._facts()
            )

    def _whole(self, command: str) -> int:
        """Ask twice in one message: a digit too many or too few would otherwise pass as another number."""
        found: int = self._ask(f"{self.number}{command};{self.number}{command}", _twice)
        return found


def _twice(reply: str) -> int:
    found = re.fullmatch(r"(-?\d+); ?(-?\d+)", reply)
    if found is None or found[1] != found[2]:
        raise ValueError(f"the same whole number twice was expected, got {reply!r}")
    return int(found[1])


class Picomotor8742(VisaDevice):
    """Four motors, of which one moves at a time; it is safe when none moves."""

    identity = r"^New_Focus 8742"
    read_termination = "\r\n"
    write_termination = "\r"

    motors = Components(Motor, numbers=(1, 2, 3, 4))

    def detect_motors(self) -> None:
        """Find out which motors are connected; each moves one step and one step back."""
        self._write("MC")
        self.wait(lambda: not self._moving(), _RESERVE)

    def _identify(self) -> None:
        super()._identify()
        for _ in range(_MOST_ERRORS):  # these errors are from before this connection
            if self._query("TB?") == _NO_ERROR:
                return

    def _write(self, command: str) -> None:
        with self._transaction():
            super()._write(command)
            answer = self._query("TB?")
        if answer != _NO_ERROR:
            raise DeviceProtocolError(f"refused: {answer}", **self._facts(command))

    def _moving(self) -> bool:
        return not all(self._ask(f"{motor}MD?;{motor}MD?", _twice) for motor in self.motors)

    def _make_safe(self) -> None:
        """Stop all motors at once."""
        self._write("AB")
        if self._moving():
            raise DeviceProtocolError("a motor still moves", **self._facts("AB"))


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"newport_8742": Picomotor8742}

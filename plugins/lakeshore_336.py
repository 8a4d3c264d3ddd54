"""Lake Shore 336 temperature controller: driver ``lakeshore_336``.

USB (virtual serial port at 57600 baud, seven data bits, odd parity), TCP port 7777, or GPIB; commands end with LF,
replies with CR LF. Commands: Lake Shore Model 336 User's Manual, chapter 6; PyPI lakeshore 1.10.0 ``model_336.py`` of
the manufacturer, and qcodes ``Lakeshore_model_336.py`` have the same. There is no error queue: ``*ESR?`` tells whether
a command was refused. A reading that is not valid comes as +0, so its status is asked for in the same message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceProtocolError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["LakeShore336"]

_STATUS = {1: "is invalid", 16: "is below the range", 32: "is above the range", 64: "has a sensor at zero",
           128: "has a sensor beyond its range"}  # fmt: skip
"""Bits of ``RDGST?``, and what each says of the reading."""
_PID = re.compile(r"([+-]\d+\.\d+),([+-]\d+\.\d+),([+-]\d+\.\d+)", re.ASCII)
"""The reply to ``PID?``: proportional, integral and derivative, as the manual has their form."""


class Input(Component):
    """One sensor input."""

    temperature = Measurement(lambda self: self._reading("KRDG?"), unit="K", shared=True, doc="Temperature.")
    sensor = Measurement(
        lambda self: self._reading("SRDG?"), unit="dimensionless", shared=True, doc="Sensor's signal, in its own unit."
    )

    def _reading(self, query: str) -> float:
        def parse(reply: str) -> tuple[float, int]:
            found = re.fullmatch(r"([+-]\d+\.?\d*(?:E[+-]?\d+)?);(\d{3})", reply)
            if found is None:
                raise ValueError(f"a reading and its status, such as +295.123;000, were expected, got {reply!r}")
            return float(found[1]), int(found[2])

        command = f"{query} {self.number};RDGST? {self.number}"
        reading: float
        reading, status = self._ask(command, parse)
        if told := [text for bit, text in _STATUS.items() if status & bit]:
            raise DeviceProtocolError(f"input {self.key}: the reading {' and '.join(told)}", **self._facts(command))
        return reading


class Output(Component):
    """An output; this is what all four have in common."""

    setpoint = Control(
        "SETP? {self.number}", "SETP {self.number},{:.4f}", unit="K", limits=(0.0, 1500.0), doc="Temperature to reach."
    )
    ramp_rate = Control(
        lambda self: self._ramp()[1],
        "RAMP {self.number},1,{:.3f}",
        unit="K/min",
        limits=(0.1, 100.0),
        doc="Rate at which the controller goes to a new setpoint; setting it switches ramps on.",
    )

    @property
    def pid(self) -> tuple[float, float, float]:
        """Gain P, integral I and derivative D of the control loop."""
        found = self._ask(f"PID? {self.number}", _PID.fullmatch)
        if found is None:
            raise DeviceProtocolError("three numbers were expected", **self._facts(f"PID? {self.number}"))
        return float(found[1]), float(found[2]), float(found[3])

    def set_pid(self, p: float, i: float, d: float) -> None:
        """Set gain P and integral I (0.1 to 1000), and derivative D (0 to 200)."""
        self._write(f"PID {self.number},{p:.1f},{i:.1f},{d:.1f}")

    def _ramp(self) -> list[float]:
        on, rate = self._ask_value(f"RAMP? {self.number}", count=2)
        return [on, rate]


class Heater(Output):
    """An output with a heater."""

    range = Control(
        "RANGE? {self.number}",
        "RANGE {self.number},{}",
        choices={"off": 0, "low": 1, "medium": 2, "high": 3},
        doc="Range of the heater's power.",
    )
    power = Measurement(
        "HTR? {self.number}", unit="percent", shared=True, doc="Power of the heater, as a part of its range."
    )


class AnalogOutput(Output):
    """An output that gives a voltage, for a heater with its own supply."""

    range = Control("RANGE? {self.number}", "RANGE {self.number},{}", choices={"off": 0, "on": 1}, doc="Output.")


class LakeShore336(ScpiDevice):
    """A controller of temperatures with four inputs and four outputs; it is safe when all outputs are off."""

    identity = r"^LSCI,MODEL336"
    error_query = "*ESR?"
    read_termination = "\r\n"
    baud_rate = 57600
    data_bits = 7
    parity = "odd"

    inputs = Components(Input, keys=("A", "B", "C", "D"))
    outputs = Components(Output, keys={1: Heater(1), 2: Heater(2), 3: AnalogOutput(3), 4: AnalogOutput(4)})

    def _make_safe(self) -> None:
        """Switch all outputs off."""
        self._write("RANGE 1,0;RANGE 2,0;RANGE 3,0;RANGE 4,0")
        on: list[Any] = [output for output in (1, 2, 3, 4) if self._ask_value(f"RANGE? {output}", int)]
        if on:
            raise DeviceProtocolError(f"outputs {on} are still on", **self._facts())


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"lakeshore_336": LakeShore336}

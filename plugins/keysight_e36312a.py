"""Keysight E36311A, E36312A and E36313A triple-output supplies: driver ``keysight_e36312a``.

USBTMC, or TCP port 5025; LF. Commands with channel lists, ``VOLT 5,(@1)``: Keysight E36300 Series Programming Guide and
pymeasure ``keysightE36312A.py``, which has the ranges too: 6 V and 5 A for output 1, 25 V and 1 A for outputs 2 and 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceProtocolError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["KeysightE36312A"]

_RANGES = {1: (6.0, 5.0), 2: (25.0, 1.0), 3: (25.0, 1.0)}
"""Highest V and A, by output."""


class Output(Component):
    """One output of the supply."""

    voltage = Control(
        "VOLT? (@{self.number})",
        "VOLT {},(@{self.number})",
        unit="V",
        limits=lambda self: (0.0, _RANGES[self.number][0]),
        doc="Voltage that the output is set to.",
    )
    current_limit = Control(
        "CURR? (@{self.number})",
        "CURR {},(@{self.number})",
        unit="A",
        limits=lambda self: (0.0, _RANGES[self.number][1]),
        doc="Highest current of the output; when it is reached, the voltage falls.",
    )
    enabled = Control("OUTP? (@{self.number})", "OUTP {:d},(@{self.number})", type=bool, doc="Output: on or off.")
    measured_voltage = Measurement(
        "MEAS:VOLT? (@{self.number})", unit="V", shared=True, doc="Voltage at the terminals."
    )
    measured_current = Measurement(
        "MEAS:CURR? (@{self.number})", unit="A", shared=True, doc="Current through the terminals."
    )

    def _make_safe(self) -> None:
        self._write(f"OUTP 0,(@{self.number})")
        if self._ask_value(f"OUTP? (@{self.number})", bool):
            raise DeviceProtocolError(f"output {self.number} is still on", **self._facts())


class KeysightE36312A(ScpiDevice):
    """A supply with three outputs; it is safe when all are off."""

    identity = r"^(Keysight|Agilent) Technologies,E3631[123]A"

    outputs = Components(Output, numbers=(1, 2, 3))

    def _make_safe(self) -> None:
        """Switch the outputs off."""


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"keysight_e36312a": KeysightE36312A}

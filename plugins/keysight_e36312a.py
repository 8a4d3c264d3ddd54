"""Keysight E36311A, E36312A and E36313A triple-output supplies: driver ``keysight_e36312a``.

USBTMC, or TCP port 5025; LF. Commands with channel lists, ``VOLT 5,(@1)``: Keysight E36300 Series Programming Guide
(E36311-90008), Channels and Channel Lists; [SOURce:]VOLTage, [SOURce:]CURRent, OUTPut and MEASure subsystems. pymeasure
``keysightE36312A.py`` and ``keysightE36311A.py`` have the same. The instrument is asked for the ranges, since they are
not the same for the models: output 3 of the E36311A has 0 to -25 V.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceProtocolError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["KeysightE36312A"]


class Output(Component):
    """One output of the supply."""

    voltage = Control(
        "VOLT? (@{self.number})",
        "VOLT {},(@{self.number})",
        unit="V",
        limits=lambda self: self._range("VOLT"),
        doc="Voltage that the output is set to.",
    )
    current_limit = Control(
        "CURR? (@{self.number})",
        "CURR {},(@{self.number})",
        unit="A",
        limits=lambda self: self._range("CURR"),
        doc="Highest current of the output; when it is reached, the voltage falls.",
    )
    enabled = Control("OUTP? (@{self.number})", "OUTP {:d},(@{self.number})", type=bool, doc="Output: on or off.")
    measured_voltage = Measurement(
        "MEAS:VOLT? (@{self.number})", unit="V", shared=True, doc="Voltage at the terminals."
    )
    measured_current = Measurement(
        "MEAS:CURR? (@{self.number})", unit="A", shared=True, doc="Current through the terminals."
    )

    def _range(self, command: str) -> tuple[float, float]:
        lowest, highest = self.device._ranges[command, self.number]  # noqa: SLF001 - of its driver
        return lowest, highest

    def _make_safe(self) -> None:
        self._write(f"OUTP 0,(@{self.number})")
        if self._ask_value(f"OUTP? (@{self.number})", bool):
            raise DeviceProtocolError(f"output {self.number} is still on", **self._facts())


class KeysightE36312A(ScpiDevice):
    """A supply with three outputs; it is safe when all are off."""

    identity = r"^(Keysight|Agilent) Technologies,E3631[123]A"

    outputs = Components(Output, numbers=(1, 2, 3))

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._ranges: dict[tuple[str, int], tuple[float, float]] = {}

    def _identify(self) -> None:
        super()._identify()
        for command in ("VOLT", "CURR"):
            for number in self.outputs:
                ends = [self._ask_value(f"{command}? {end},(@{number})") for end in ("MIN", "MAX")]
                self._ranges[command, int(number)] = min(ends), max(ends)  # a negative output has MAX below MIN

    def _make_safe(self) -> None:
        """Switch the outputs off."""


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"keysight_e36312a": KeysightE36312A}

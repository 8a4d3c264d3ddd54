"""Keithley 2450 SourceMeter: driver ``keithley_2450``.

USBTMC, GPIB, or TCP port 5025; LF; its SCPI command set (``*LANG SCPI``). Commands: Model 2450 Reference Manual
2450-901-01 Rev. B (September 2013), p. 6-4 and following, B-5; pymeasure ``keithley2450.py`` and qcodes
``Keithley_2450.py`` have the same. Limits of the source: 210 V, 1.05 A (pymeasure).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.errors import DeviceOpenError, DeviceProtocolError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["Keithley2450"]


class Keithley2450(ScpiDevice):
    """A source of voltage or current that measures both; it is safe when its output is off."""

    identity = r"^KEITHLEY.*MODEL 2450"
    #: Seconds: a reading of 10 power line cycles takes 0.2 s, and an automatic range may take several.
    io_timeout = 5.0

    source = Control(
        "SOUR:FUNC?", "SOUR:FUNC {}", choices={"voltage": "VOLT", "current": "CURR"}, doc="Quantity that is sourced."
    )
    voltage = Control("SOUR:VOLT?", "SOUR:VOLT {}", unit="V", limits=(-210.0, 210.0), doc="Voltage that is sourced.")
    current = Control("SOUR:CURR?", "SOUR:CURR {}", unit="A", limits=(-1.05, 1.05), doc="Current that is sourced.")
    current_limit = Control(
        "SOUR:VOLT:ILIM?",
        "SOUR:VOLT:ILIM {}",
        unit="A",
        limits=(1e-9, 1.05),
        doc="Largest current of a voltage source.",
    )
    voltage_limit = Control(
        "SOUR:CURR:VLIM?",
        "SOUR:CURR:VLIM {}",
        unit="V",
        limits=(0.02, 210.0),
        doc="Largest voltage of a current source.",
    )
    limited = Measurement(
        lambda self: self._ask_value(f"SOUR:{'VOLT:ILIM' if self.source == 'voltage' else 'CURR:VLIM'}:TRIP?", bool),
        type=bool,
        doc="Limit: reached or not; when it is, the source does not reach its value.",
    )
    enabled = Control("OUTP?", "OUTP {:d}", type=bool, doc="Output: on or off.")
    measured_voltage = Measurement("MEAS:VOLT?", unit="V", doc="Voltage at the terminals.")
    measured_current = Measurement("MEAS:CURR?", unit="A", doc="Current through the terminals.")
    current_cycles = Control(
        "SENS:CURR:NPLC?",
        "SENS:CURR:NPLC {}",
        unit="dimensionless",
        limits=(0.01, 10.0),
        doc="Power line cycles that a reading of the current takes.",
    )
    four_wire = Control(
        "SENS:CURR:RSEN?", "SENS:CURR:RSEN {:d}", type=bool, doc="Remote sense: on (four wires) or off."
    )
    terminals = Control(
        "ROUT:TERM?",
        "ROUT:TERM {}",
        choices={"front": "FRON", "rear": "REAR"},
        doc="Terminals in use; a change switches the output off.",
    )

    def _identify(self) -> None:
        super()._identify()
        language = self._query("*LANG?").strip()
        if language != "SCPI":
            raise DeviceOpenError(
                f"the command set SCPI was expected, found {language!r}: send *LANG SCPI, then switch the instrument "
                "off and on",
                **self._facts("*LANG?"),
            )

    def _make_safe(self) -> None:
        """Switch the output off."""
        self._write("OUTP 0")
        if self._ask_value("OUTP?", bool):
            raise DeviceProtocolError("the output is still on", **self._facts("OUTP 0"))


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"keithley_2450": Keithley2450}

"""Thorlabs PM100D optical power meter, and its relatives with the same commands: driver ``thorlabs_pm100d``.

USBTMC, LF. Commands and replies: PM100D manual, SCPI chapter, p. 49-51; PM400 manual p. 42-46 and PM100USB manual
p. 20-21 have the same command tree. Each model answers ``*IDN?`` with its own name, in capitals or small letters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DeviceProtocolError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.interfaces import PowerMeter
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["PM100D"]


class PM100D(ScpiDevice, PowerMeter):
    """A power meter with a photodiode or thermal sensor."""

    identity = r"^THORLABS,PM"
    strict = True
    #: Seconds: 3 ms for each sample of the average (manual), 1 s in reserve.
    io_timeout = 4.0

    power = Measurement(
        "MEAS:POW?",
        unit="W",
        doc="Optical power on the sensor, corrected for ``wavelength``; infinite when it is above the range.",
    )
    wavelength = Control(
        "SENS:CORR:WAV?",
        "SENS:CORR:WAV {}",
        unit="nm",
        limits=lambda self: self._wavelengths,
        doc="Wavelength for which readings are corrected, within the calibrated range of the sensor.",
    )
    averaging = Control(
        "SENS:AVER:COUN?",
        "SENS:AVER:COUN {}",
        type=int,
        limits=(1, 1000),
        doc="Number of samples in one reading, 3 ms each.",
    )
    auto_range = Control(
        "SENS:POW:RANG:AUTO?",
        "SENS:POW:RANG:AUTO {}",
        type=bool,
        doc="Automatic range: on, or off (False) if the range stays as it is.",
    )
    sensor = Measurement(
        "SYST:SENS:IDN?",
        type=str,
        doc="Sensor that is plugged in: name, serial number, calibration, type, subtype, flags.",
    )

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._wavelengths = (0.0, 0.0)

    def _identify(self) -> None:
        super()._identify()
        self._wavelengths = self._ask_value("SENS:CORR:WAV? MIN"), self._ask_value("SENS:CORR:WAV? MAX")
        # Somebody may have set the unit to dBm at the front panel.
        self._write("SENS:POW:UNIT W")
        unit = self._query("SENS:POW:UNIT?")
        if unit.strip() != "W":
            raise DeviceProtocolError(f"readings must be in W, found {unit!r}", **self._facts("SENS:POW:UNIT?"))


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"thorlabs_pm100d": PM100D}

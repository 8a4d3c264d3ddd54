"""Thorlabs TSP01 (revision A) USB temperature and humidity logger: driver ``thorlabs_tsp01``.

USBTMC, LF. Commands: github QuTech-Delft/QMI ``qmi/instruments/thorlabs/tsp01.py``; no manual that lists them was
found.
Revision B (made since about 2018) does not speak SCPI, and is not supported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.interfaces import EnvironmentSensor
from catkit_devices.properties import Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["TSP01"]


class TSP01(ScpiDevice, EnvironmentSensor):
    """A logger with built-in sensors, and two external probes that can be plugged in."""

    identity = r"TSP01"

    temperature = Measurement("MEAS:TEMP1?", unit="degC", shared=True, doc="Temperature of the logger.")
    humidity = Measurement("MEAS:HUM?", unit="percent", shared=True, doc="Relative humidity at the logger.")
    probe_1 = Measurement("MEAS:TEMP2?", unit="degC", shared=True, doc="Temperature of the first external probe.")
    probe_2 = Measurement("MEAS:TEMP3?", unit="degC", shared=True, doc="Temperature of the second external probe.")


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"thorlabs_tsp01": TSP01}

r"""Omega iTHX-W3 and iTHX-2 temperature and humidity sensors: driver ``omega_ithx``.

TCP port 2000; commands and replies end with CR; no echo, no prompt. Commands: github spacetelescope/catkit
``catkit/hardware/omega/iTHX_W3_2.py`` (which cites Omega's manual M4965) and github MSLNZ/msl-equipment
``omega/ithx.py`` with its tests, which also have the replies: zero-padded decimals such as ``019.4\r`` and ``03.36\r``.
There is no known query for the identity: opening asks for a temperature instead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from catkit_devices.device import operation
from catkit_devices.hookspecs import hookimpl
from catkit_devices.interfaces import EnvironmentSensor
from catkit_devices.properties import Measurement
from catkit_devices.visa import VisaDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["ITHX"]

_READING = re.compile(r"-?\d{3}\.\d|-?\d{2}\.\d{1,2}", re.ASCII)
"""A reading: four digits, as the display has them."""


def _reading(reply: str) -> float:
    """Return the number in a reply; strict about its form, because one extra digit gives another temperature."""
    if not _READING.fullmatch(reply) or len(reply) not in (5, 6):
        raise ValueError(f"a reading such as 019.4 was expected, got {reply!r}")
    return float(reply)


class ITHX(VisaDevice, EnvironmentSensor):
    """The first probe of the sensor."""

    read_termination = "\r"
    write_termination = "\r"

    temperature = Measurement("*SRTC", type=_reading, unit="degC", shared=True, doc="Temperature of the air.")
    humidity = Measurement("*SRH", type=_reading, unit="percent", shared=True, doc="Relative humidity of the air.")
    dew_point = Measurement("*SRDC", type=_reading, unit="degC", shared=True, doc="Dew point of the air.")

    @operation(shared=True)
    def read_both(self) -> tuple[float, float]:
        r"""Return temperature in °C and relative humidity in %, measured together; not with the models W and 2.

        The reply has a CR before its comma, ``019.4\r,057.0\r``, so it takes two reads.
        """
        with self._exchange("*SRB"):
            self._send("*SRB")
            temperature = _reading(self._read())
            humidity = self._read()
            if not humidity.startswith(","):
                raise ValueError(f"a comma and the humidity were expected, got {humidity!r}")
            return temperature, _reading(humidity[1:])

    def _identify(self) -> None:
        self._ask("*SRTC", _reading)


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"omega_ithx": ITHX}

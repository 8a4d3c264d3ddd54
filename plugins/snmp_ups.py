"""Uninterruptible power supplies with an SNMP card that has the UPS-MIB: driver ``snmp_ups``.

Objects, units and values: RFC 1628 (UPS-MIB). The driver only reads. Cards that have only a manufacturer's own MIB (APC
PowerNet, Eaton XUPS) are not supported. It needs the package pysnmp: ``pip install 'catkit-devices[snmp]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Measurement

from ._snmp import SnmpDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["SnmpUps"]

_OUTPUT_SOURCE = {"other": 1, "none": 2, "normal": 3, "bypass": 4, "battery": 5, "booster": 6, "reducer": 7}
"""Values of upsOutputSource, RFC 1628."""
_BATTERY_STATUS = {"unknown": 1, "normal": 2, "low": 3, "depleted": 4}
"""Values of upsBatteryStatus, RFC 1628."""


def _tenths(reply: str) -> float:
    return int(reply) / 10


class SnmpUps(SnmpDevice):
    """A UPS; the driver switches nothing, so making it safe does nothing.

    For a safety check, use ``seconds_on_battery`` (``maximum = 60``) or ``minutes_remaining`` (``minimum = 10``): the
    check fails too where the UPS does not answer. Reading what a card does not have (noSuchName) is a
    DeviceProtocolError.

    Args:
        address: host name or IP address of the UPS's network card.
        port: UDP port.
        community: the name that the card asks for, like a password, to allow reading.
    """

    mib = "1.3.6.1.2.1.33.1."
    mib_name = "UPS-MIB"
    always_there = "4.1.0"

    output_source = Measurement("4.1.0", choices=_OUTPUT_SOURCE, shared=True, doc="Source of the output power.")
    on_battery = Measurement(
        lambda self: self.output_source == "battery", type=bool, shared=True, doc="Battery supply: the mains fail."
    )
    battery_status = Measurement("2.1.0", choices=_BATTERY_STATUS, shared=True, doc="State of the battery.")
    battery_charge = Measurement("2.4.0", unit="percent", shared=True, doc="Charge that is left in the battery.")
    minutes_remaining = Measurement(
        "2.3.0", unit="min", shared=True, doc="Time until the battery is empty, at the present load without mains."
    )
    seconds_on_battery = Measurement("2.2.0", unit="s", shared=True, doc="Time on battery by now; 0 on mains.")
    battery_voltage = Measurement("2.5.0", type=_tenths, unit="V", shared=True, doc="Voltage of the battery.")
    battery_temperature = Measurement("2.7.0", unit="degC", shared=True, doc="Temperature at or near the battery.")
    input_voltage = Measurement("3.3.1.3.1", unit="V", shared=True, doc="Voltage of the mains, of the first phase.")
    input_frequency = Measurement("3.3.1.2.1", type=_tenths, unit="Hz", shared=True, doc="Frequency of the mains.")
    output_voltage = Measurement("4.4.1.2.1", unit="V", shared=True, doc="Voltage at the output, of the first phase.")
    load = Measurement("4.4.1.5.1", unit="percent", shared=True, doc="Load, in percent of what the UPS can supply.")
    alarms = Measurement("6.1.0", type=int, shared=True, doc="Number of alarms that are present.")
    model = Measurement("1.2.0", type=str, shared=True, doc="Model of the UPS.")


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"snmp_ups": SnmpUps}

"""Doors through which programs that speak VISA use instruments: HiSLIP, on one port for all of them.

HiSLIP is the protocol of Ethernet instruments (IVI-6.1): messages with ends, device clear, status bytes and locks, on
two connections. Any VISA library opens ``TCPIP::host::hislip_meter,port::INSTR`` with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.gateway.doors import InstrumentDoor as InstrumentDoor
    from catkit_devices.gateway.doors import Visit as Visit
    from catkit_devices.gateway.server import HislipServer as HislipServer
    from catkit_devices.gateway.simulated import SimulatedInstrument as SimulatedInstrument
    from catkit_devices.gateway.testbed_device import TestbedDevice as TestbedDevice

__all__ = ["HislipServer", "InstrumentDoor", "SimulatedInstrument", "TestbedDevice", "Visit"]

__getattr__ = importing(
    __name__,
    {
        "doors": ("InstrumentDoor", "Visit"),
        "server": ("HislipServer",),
        "simulated": ("SimulatedInstrument",),
        "testbed_device": ("TestbedDevice",),
    },
)

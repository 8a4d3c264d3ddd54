"""Laboratory instruments shared by many programs: mutexed devices, driver plugins, safety, simulation.

The names that drivers and experiments begin with can be had from here; everything else from the module that it is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.components import Component, Components
    from catkit_devices.device import Device, operation, unlocked
    from catkit_devices.hookspecs import hookimpl
    from catkit_devices.multiprocessing import Mutex, Process, SharedMemoryManager, lock_all
    from catkit_devices.properties import Control, Measurement, Setting, command_text
    from catkit_devices.scpi import ScpiDevice
    from catkit_devices.serial_device import SerialDevice
    from catkit_devices.testbed import Experiment, Testbed, load_configuration
    from catkit_devices.visa import VisaDevice

__all__ = [
    "Component",
    "Components",
    "Control",
    "Device",
    "Experiment",
    "Measurement",
    "Mutex",
    "Process",
    "ScpiDevice",
    "SerialDevice",
    "Setting",
    "SharedMemoryManager",
    "Testbed",
    "VisaDevice",
    "command_text",
    "hookimpl",
    "load_configuration",
    "lock_all",
    "operation",
    "unlocked",
]

__getattr__ = importing(
    __name__,
    {
        "components": ("Component", "Components"),
        "device": ("Device", "operation", "unlocked"),
        "hookspecs": ("hookimpl",),
        "multiprocessing": ("Mutex", "Process", "SharedMemoryManager", "lock_all"),
        "properties": ("Control", "Measurement", "Setting", "command_text"),
        "scpi": ("ScpiDevice",),
        "serial_device": ("SerialDevice",),
        "testbed": ("Experiment", "Testbed", "load_configuration"),
        "visa": ("VisaDevice",),
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

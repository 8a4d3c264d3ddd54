"""Laboratory instruments shared by many programs: mutexed devices, driver plugins, safety, simulation.

The names that drivers and experiments begin with can be had from here; everything else from the module that it is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catkit_devices.device import Device, operation, unlocked
    from catkit_devices.hookspecs import hookimpl
    from catkit_devices.multiprocessing import Mutex, Process, SharedMemoryManager, lock_all
    from catkit_devices.properties import Control, Measurement, Setting
    from catkit_devices.testbed import Experiment, Testbed, load_configuration
    from catkit_devices.visa import VisaDevice

__all__ = [
    "Control",
    "Device",
    "Experiment",
    "Measurement",
    "Mutex",
    "Process",
    "Setting",
    "SharedMemoryManager",
    "Testbed",
    "VisaDevice",
    "hookimpl",
    "load_configuration",
    "lock_all",
    "operation",
    "unlocked",
]

_HOME = {
    "Control": "properties",
    "Device": "device",
    "Experiment": "testbed",
    "Measurement": "properties",
    "Mutex": "multiprocessing",
    "Process": "multiprocessing",
    "Setting": "properties",
    "SharedMemoryManager": "multiprocessing",
    "Testbed": "testbed",
    "VisaDevice": "visa",
    "hookimpl": "hookspecs",
    "load_configuration": "testbed",
    "lock_all": "multiprocessing",
    "operation": "device",
    "unlocked": "device",
}


def __getattr__(name: str) -> Any:
    # Lazily, because every child process pays for what it imports.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

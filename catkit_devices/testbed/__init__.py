"""Devices, safety checks and experiments of one laboratory bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.testbed.caching import Devices
    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.configuration import Configuration, bundled, load_configuration
    from catkit_devices.testbed.experiment import Experiment
    from catkit_devices.testbed.finding import running_testbeds
    from catkit_devices.testbed.progress import Progress
    from catkit_devices.testbed.safety import SafetyTest
    from catkit_devices.testbed.testbed import Testbed

__all__ = [
    "Configuration",
    "Devices",
    "Experiment",
    "Progress",
    "SafetyTest",
    "Testbed",
    "TestbedClient",
    "bundled",
    "load_configuration",
    "running_testbeds",
]

__getattr__ = importing(
    __name__,
    {
        "caching": ("Devices",),
        "client": ("TestbedClient",),
        "configuration": ("Configuration", "bundled", "load_configuration"),
        "experiment": ("Experiment",),
        "finding": ("running_testbeds",),
        "progress": ("Progress",),
        "safety": ("SafetyTest",),
        "testbed": ("Testbed",),
    },
)

"""Devices, safety checks and experiments of one laboratory bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.configuration.loader import bundled, load_configuration
    from catkit_devices.testbed.configuration.model import Configuration
    from catkit_devices.testbed.devices.devices import Devices
    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.testbed.experiments.progress import Progress
    from catkit_devices.testbed.processes.finding import running_testbeds
    from catkit_devices.testbed.safety.check import SafetyTest
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
        "devices.devices": ("Devices",),
        "client": ("TestbedClient",),
        "configuration.loader": ("bundled", "load_configuration"),
        "configuration.model": ("Configuration",),
        "experiments.experiment": ("Experiment",),
        "processes.finding": ("running_testbeds",),
        "experiments.progress": ("Progress",),
        "safety.check": ("SafetyTest",),
        "testbed": ("Testbed",),
    },
)

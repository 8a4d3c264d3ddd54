"""Devices, safety checks and experiments of one laboratory bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_HOME = {
    "Configuration": "configuration",
    "Devices": "caching",
    "Experiment": "experiment",
    "Progress": "progress",
    "SafetyTest": "safety",
    "Testbed": "testbed",
    "TestbedClient": "client",
    "bundled": "configuration",
    "load_configuration": "configuration",
    "running_testbeds": "finding",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

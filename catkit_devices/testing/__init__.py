"""Testing drivers without instruments: the parts of the pytest plugin, and the suite that every driver must pass.

The fixtures are in :mod:`catkit_devices.pytest_plugin`, the suite is
:class:`catkit_devices.testing.conformance.DriverConformance`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catkit_devices.testing.conformance import DriverConformance
    from catkit_devices.testing.faults import Faults
    from catkit_devices.testing.simulations import Simulations

__all__ = ["DriverConformance", "Faults", "Simulations"]

_HOMES = {"DriverConformance": "conformance", "Faults": "faults", "Simulations": "simulations"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

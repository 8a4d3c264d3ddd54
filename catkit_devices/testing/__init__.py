"""Testing drivers without instruments: the parts of the pytest plugin, and the suite that every driver must pass.

The fixtures are in :mod:`catkit_devices.pytest_plugin`, the suite is
:class:`catkit_devices.testing.conformance.DriverConformance`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.testing.conformance import DriverConformance
    from catkit_devices.testing.faults import Faults
    from catkit_devices.testing.simulations import Simulations

__all__ = ["DriverConformance", "Faults", "Simulations"]

__getattr__ = importing(
    __name__, {"conformance": ("DriverConformance",), "faults": ("Faults",), "simulations": ("Simulations",)}
)

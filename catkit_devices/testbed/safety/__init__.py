"""Safety: checks, the monitor that reads them, the permits of device servers, and the rescue of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.testbed.safety.check import SafetyTest

__all__ = ["SafetyTest"]

__getattr__ = importing(__name__, {"check": ("SafetyTest",)})

"""The command line ``catkit-devices``."""

from __future__ import annotations

from catkit_devices.cli.application import main

__all__ = ["main"]

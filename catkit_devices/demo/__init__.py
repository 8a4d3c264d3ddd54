"""Two experiments that share a simulated bench, and the picture of what they measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.demo.filter_scan import FilterScan
    from catkit_devices.demo.keep_centred import KeepCentred
    from catkit_devices.demo.plotting import plot

__all__ = ["FilterScan", "KeepCentred", "plot"]

__getattr__ = importing(
    __name__, {"filter_scan": ("FilterScan",), "keep_centred": ("KeepCentred",), "plotting": ("plot",)}
)

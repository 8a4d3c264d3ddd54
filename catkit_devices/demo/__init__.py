"""Two experiments that share a simulated bench, and the picture of what they measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catkit_devices.demo.filter_scan import FilterScan
    from catkit_devices.demo.keep_centred import KeepCentred
    from catkit_devices.demo.plotting import plot

__all__ = ["FilterScan", "KeepCentred", "plot"]

_HOME = {"FilterScan": "filter_scan", "KeepCentred": "keep_centred", "plot": "plotting"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

"""Drivers of other frameworks as devices: sources that find and describe them, and the classes that host them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.foreign.description import (
        Children,
        Description,
        DriverSource,
        LeftOut,
        Member,
        attributes_set_by,
        bundled_class,
        found_class,
        missing,
        read_class,
        syntax_of,
    )
    from catkit_devices.foreign.device import ForeignDevice
    from catkit_devices.foreign.generate import device_class

__all__ = [
    "Children",
    "Description",
    "DriverSource",
    "ForeignDevice",
    "LeftOut",
    "Member",
    "attributes_set_by",
    "bundled_class",
    "device_class",
    "found_class",
    "missing",
    "read_class",
    "syntax_of",
]

__getattr__ = importing(
    __name__,
    {
        "description": (
            "Children",
            "Description",
            "DriverSource",
            "LeftOut",
            "Member",
            "attributes_set_by",
            "bundled_class",
            "found_class",
            "missing",
            "read_class",
            "syntax_of",
        ),
        "device": ("ForeignDevice",),
        "generate": ("device_class",),
    },
)

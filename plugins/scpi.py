"""Any SCPI instrument, from its table in the configuration: driver ``scpi``.

Its properties, commands and safe state are written there, see the how-to on describing an instrument in TOML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.scpi_tables import TableScpiDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["TableScpiDevice"]


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"scpi": TableScpiDevice}

"""The limits of safety checks as plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices import units
from catkit_devices._device.access import DeviceProperty
from catkit_devices._device.members import members_at
from catkit_devices._device.values import checked
from catkit_devices.errors import ConfigurationError

if TYPE_CHECKING:
    from catkit_devices._device.values import Limits
    from catkit_devices.device import Device
    from catkit_devices.testbed.configuration.model import SafetyConfiguration

__all__ = ["plain_bound", "plain_bounds", "unit_of"]


def plain_bound(table: SafetyConfiguration, key: str, driver: type[Device] | None) -> float | None:
    """Return the bound ``key`` (``"minimum"`` or ``"maximum"``) of a check as a number in the unit of its property.

    Args:
        table: of the check.
        key: which bound.
        driver: of the device that is read; None for a test of a plugin's own kind, of which no property is known.

    Raises:
        ValueError: it is a text that is no number in that unit.
    """
    bound: float | str | None = getattr(table, key)
    if not isinstance(bound, str):
        return bound
    unit = None if driver is None else unit_of(driver, table.property or "")
    if unit is None:
        what = "a test of a plugin" if driver is None else f"{table.property!r}, which declares no unit"
        raise ValueError(f"expected a plain number for {what}, got {bound!r}")
    try:
        return units.convert(bound, unit)
    except ValueError as error:
        raise ValueError(f"expected a number in the unit of {table.property!r}: {error}") from error


def unit_of(driver: type[Device], path: str) -> str | None:
    """Return the unit of a property; None if it has none, or if its components have different units."""
    try:
        members = [member for _, member in members_at(driver, path)]
    except ConfigurationError:
        return None  # there is no such property; another check reports that
    units_ = {member.describe().get("unit") if isinstance(member, DeviceProperty) else None for member in members}
    return units_.pop() if len(units_) == 1 else None


def plain_bounds(table: SafetyConfiguration, driver: type[Device] | None) -> Limits:
    """Return both; raises as :func:`plain_bound` does, and if the lowest is above the highest."""
    return checked((plain_bound(table, "minimum", driver), plain_bound(table, "maximum", driver)))

"""A property of a foreign object as a property of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DeviceProtocolError, DeviceValueError
from catkit_devices.properties import Quantity
from catkit_devices.readings import real_number
from catkit_devices.units import is_quantity, magnitude

if TYPE_CHECKING:
    from catkit_devices.foreign.description import Member

__all__ = ["ForeignQuantity"]


class ForeignQuantity(Quantity):
    """Reads and sets an attribute of the foreign object.

    What the framework declares is checked before anything is sent. The foreign driver gets a value as it was given
    where that is a plain one of the declared type, and its conversion where it is a quantity or a text with a unit.

    Args:
        member: what the framework declares.
        unit: instead of the declared one.
        numeric: whether a value must be a number in any case.
        shared: whether it is read without the mutex.
    """

    kind = "control"

    def __init__(self, member: Member, *, unit: str | None = None, numeric: bool = False, shared: bool = False) -> None:
        unit = unit or member.unit
        super().__init__(
            self._read_foreign if member.readable else None,
            self._write_foreign if member.writable else None,
            type=float if member.numeric or numeric or unit is not None else _any,
            unit=unit,
            limits=member.limits,
            choices=member.choices,
            doc=member.doc,
            shared=shared,
        )
        if not (member.readable and member.writable):
            self.kind = "measurement" if member.readable else "setting"  # type: ignore[misc]  # of each by itself
        self._attribute = member.name

    def read(self, device: Any) -> Any:
        """Read it from the foreign object; the value is not checked."""
        if (reads := device._device_._limit_reads_) is not None:
            reads.append((device, self.name))
        return self._read_foreign(device)

    def check(self, device: Any, value: Any, *, ask: bool = True) -> Any:
        """Return the value for the foreign object; DeviceValueError if it may not be set."""
        if not self._rule.numeric and self._rule.choices is None:
            number = real_number(value)
            if number is not None and number != number:
                raise DeviceValueError(f"{device._prefix_}{self.name} must not be NaN", **device._facts_())
            return value
        plain = super().check(device, value, ask=ask)
        try:
            return value if not isinstance(value, str) and bool(value == plain) else plain
        except (TypeError, ValueError):  # an array, for example
            return plain

    def _read_foreign(self, device: Any) -> Any:
        value = device._device_._read_from_(device, self.name, self._attribute)
        unit = self._rule.unit
        return value if unit is None or not is_quantity(value) else self._number(device, value, unit)

    def _number(self, device: Any, value: Any, unit: str) -> Any:
        """Return a quantity of pint, which is what some frameworks read, as a number in the unit of the property."""
        try:
            number = magnitude(value, unit)
            if not self.writable or value.units == type(value)(1, unit).units:
                return number
            # A plain number that is set would be taken for one in the driver's unit.
            problem = f"is in {value.units} in its driver, so its unit cannot be {unit}"
        except ValueError as error:
            problem = str(error)
        raise DeviceProtocolError(f"{device._prefix_}{self.name} {problem}", **device._facts_())

    def _write_foreign(self, device: Any, value: Any) -> None:
        device._device_._write_to_(device, self.name, self._attribute, value)


def _any(value: Any) -> Any:
    return value


_any.__name__ = "value"

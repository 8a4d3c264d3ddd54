"""A property of a foreign object as a property of a device."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DeviceProtocolError, DeviceValueError
from catkit_devices.properties import Quantity
from catkit_devices.readings import carried_unit, no_measurement, real_number
from catkit_devices.units import magnitude, quantity_of

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
        declared, unit = unit, unit or member.unit
        is_number = member.numeric or numeric or unit is not None
        limits: Any = member.limits
        if any(bound is not None and no_measurement(bound) for bound in limits or ()):
            limits = partial(_told, limits)  # by the instrument, perhaps: only setting it is refused
        super().__init__(
            self._read_foreign if member.readable else None,
            self._write_foreign if member.writable else None,
            type=member.kind or (float if is_number else _any),
            unit=unit,
            limits=limits,
            choices=member.choices,
            doc=member.doc,
            shared=shared,
        )
        if not (member.readable and member.writable):
            self.kind = "measurement" if member.readable else "setting"  # type: ignore[misc]  # of each by itself
        self._member = member
        self._configured: dict[str, Any] = {"unit": declared, "numeric": numeric, "shared": shared}

    def read(self, device: Any) -> Any:
        """Read it from the foreign object; the value is not checked."""
        if (known := self._known(device)) is not self:
            return known.read(device)
        if (reads := device._device_._limit_reads_) is not None:
            reads.append((device, self.name))
        return self._read_foreign(device)

    def write(self, device: Any, value: Any) -> None:
        """Check ``value`` and set it; raises as :meth:`Quantity.write` does."""
        known = self._known(device)
        Quantity.write(known, device, value)

    def _known(self, device: Any) -> ForeignQuantity:
        """Return the property that the device has now: opening it, for this very operation, may have given it more."""
        found = inspect.getattr_static(type(device), self.name, None)
        return found if isinstance(found, ForeignQuantity) else self

    def check(self, device: Any, value: Any, *, ask: bool = True) -> Any:
        """Return the value for the foreign object; DeviceValueError if it may not be set."""
        if (present := self._present(device)) is not self:
            return present.check(device, value, ask=ask)
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

    def describe(self, device: Any = None) -> dict[str, Any]:
        """Return what the framework declares; with ``device``, what it declares at present."""
        return Quantity.describe(self if device is None else self._present(device), device)

    def _present(self, device: Any) -> ForeignQuantity:
        """Return this property with what the framework declares now: that may change while the device is open."""
        if self._member.now is None or not device._device_.is_open:
            return self
        member = replace(self._member.now(device._target_()), now=None)
        if member == replace(self._member, now=None):
            return self
        present = ForeignQuantity(member, **self._configured)
        present.__set_name__(type(device), self.name)
        return present

    def _read_foreign(self, device: Any) -> Any:
        value = device._device_._read_from_(device, self.name, self._member)
        unit = self._rule.unit
        return value if unit is None or carried_unit(value) is None else self._number(device, value, unit)

    def _number(self, device: Any, value: Any, unit: str) -> Any:
        """Return a quantity, which is what some frameworks read, as a number in the unit of the property."""
        try:
            given: Any = quantity_of(value)
            number = magnitude(given, unit)
            if not self.writable or given.units == type(given)(1, unit).units:
                return number
            # A plain number that is set would be taken for one in the driver's unit.
            problem = f"is in {given.units} in its driver, so its unit cannot be {unit}"
        except ValueError as error:
            problem = str(error)
        raise DeviceProtocolError(f"{device._prefix_}{self.name} {problem}", **device._facts_())

    def _write_foreign(self, device: Any, value: Any) -> None:
        device._device_._write_to_(device, self.name, self._member, value)


def _told(limits: Any, _device: Any) -> Any:
    return limits


def _any(value: Any) -> Any:
    return value


_any.__name__ = "value"
